"""Dashboards for Grafana as code: `build.py` writes `dashboards/`."""
