"""What `routing.yaml` and its neighbours say, checked and ready to decide by."""
