"""The benchmark: what one can expect, each figure beside the limit measured in the same run."""
