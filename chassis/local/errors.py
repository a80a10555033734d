"""Why the local platform could not be had; the message is a sentence for the person at the terminal.

LocalPlatformError
    NotOurs     a server that was given to us would have to be stopped, killed or frozen
"""


class LocalPlatformError(Exception):
    """Kafka or PostgreSQL cannot run here; says what is wrong and what to do about it."""


class NotOurs(LocalPlatformError):
    """The server was given by a setting, so its life is not ours to end or to interrupt."""
