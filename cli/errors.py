"""What a person at the terminal is told when something went wrong: one sentence, with what to do.

CommandError       a command cannot do what was asked; its message is the sentence
└── UsageMistake   what was typed cannot work, and typing it again will not help (exit code 2)
"""

import os
from typing import Final

FAILED: Final = 1
MISTYPED: Final = 2
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command cannot do what was asked; the message is one sentence that says what to do."""


class UsageMistake(CommandError):
    """What was typed cannot work."""


def sentence(error: BaseException) -> str | None:
    """Return what to tell a person about `error`, or None where nobody expected it.

    Errors of libraries are known by the package they come from, so that telling about one imports nothing.
    """
    roots = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, CommandError) or roots & {"chassis", "services", "cli"}:
        return str(error)
    if "asyncpg" in roots:
        return _database(error, names)
    if "aiokafka" in roots:
        return f"Kafka at {_kafka()} does not answer as it should ({_short(error)}); is it running, and is SIGNALBOX_KAFKA right?"
    if "httpx" in roots:
        return f"The gateway does not answer ({_short(error)}); is ingest running, and is --gateway right?"
    if isinstance(error, TimeoutError):
        return "No answer in time; are Kafka and PostgreSQL running, and can they be reached from here?"
    if isinstance(error, BrokenPipeError):
        return ""
    if isinstance(error, OSError):
        return _system(error)
    return None


def _database(error: BaseException, names: set[str]) -> str:
    if names & {"UndefinedTableError", "InvalidSchemaNameError", "UndefinedColumnError"}:
        return "The database lacks tables of this release; run `signalbox db migrate`."
    if "InvalidCatalogNameError" in names:
        return "The database that SIGNALBOX_DATABASE_URL names does not exist; create it, then run `signalbox db migrate`."
    if names & {"InvalidPasswordError", "InvalidAuthorizationSpecificationError"}:
        return "PostgreSQL refuses this user or password; check SIGNALBOX_DATABASE_URL."
    if "InsufficientPrivilegeError" in names:
        return (
            f"PostgreSQL does not allow that to this user ({_short(error)}); `db migrate` makes schemas, and the demo a"
            " database of its own."
        )
    return f"PostgreSQL does not answer as it should ({_short(error)}); is it running, and is SIGNALBOX_DATABASE_URL right?"


def _system(error: OSError) -> str:
    if isinstance(error, ConnectionError):
        return (
            f"Nobody answers there ({_short(error)}); is what SIGNALBOX_KAFKA and SIGNALBOX_DATABASE_URL name running?"
            " `signalbox up` starts everything on this machine."
        )
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or _short(error)}."


def _kafka() -> str:
    return os.environ.get("SIGNALBOX_KAFKA", "").strip() or "its address"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def unexpected(error: BaseException) -> str:
    """Return what to say about an error that nobody expected."""
    return f"Something failed that should not: {type(error).__name__}: {_short(error)}. Run it again with --debug for the details."
