"""`signalbox …`: what a person types. One module a command group."""
