"""Checks of the deployment on real parts: image, chart, cluster. Each prints what it saw."""
