"""What runs Signalbox, and what watches it: image, chart, rules, dashboards. Nothing of the product imports it."""
