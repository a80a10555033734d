"""All of Signalbox on one machine with Docker: `compose.yaml`, and what it mounts."""
