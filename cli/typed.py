"""What people type, read the same way by every command: who they are, and instants."""

from datetime import UTC, datetime

from cli.errors import UsageMistake


def user(by: str) -> str:
    """Return who gives a command: `by`, else the user of this machine.

    Raises:
        UsageMistake: neither says.
    """
    import getpass

    if by.strip():
        return by.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UsageMistake("--by is needed: this machine does not say who you are.") from None


def instant(option: str, given: str) -> datetime | None:
    """Return an instant of an option; None where it was left out.

    Raises:
        UsageMistake: it is none, or has no offset.
    """
    if not given:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise UsageMistake(
            f"{option} {given}: must be an instant such as 2026-11-24T07:40:00Z."
        ) from None
    if found.tzinfo is None:
        raise UsageMistake(f"{option} {given}: needs an offset, such as Z or +03:00.")
    return found.astimezone(UTC)
