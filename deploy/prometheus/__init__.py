"""Rules for Prometheus: written by hand in `rules/`, but for `rules/slo.yaml`, which `slo.py` writes; `lint.py` reads them all."""
