"""The notifier's providers, one module each."""
