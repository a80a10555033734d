"""The services of Signalbox, one package each; none imports another."""
