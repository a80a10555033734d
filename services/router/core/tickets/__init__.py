"""The life of a ticket: what each message, command and event makes of it."""
