"""The image: how it is built (`Dockerfile`), what is in it (`sbom`), and which images it and compose stand on (`pin`)."""
