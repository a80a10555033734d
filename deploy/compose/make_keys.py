"""Make the passwords and keys of a compose installation, once: `python make_keys.py FOLDER`.

Runs in the image, before everything else. A file that is there is never written anew, so that a second `up` finds the
database by the password that it was made with, and replies to older mails find their conversation. The files can be read
by every user of the containers that mount the volume (PostgreSQL is another user than ours), and by nobody else.
"""

import secrets
import sys
from pathlib import Path
from typing import Final

BYTES: Final = 32
NAMES: Final = ("database-password", "token-secret", "console", "systems")


def make_keys(folder: Path) -> list[str]:
    """Make what is missing in `folder`; return the names of what was made."""
    folder.chmod(0o755)
    made = [name for name in NAMES if _write(folder / name, secrets.token_hex(BYTES))]
    password = (folder / "database-password").read_text(encoding="ascii")
    if _write(
        folder / "database-url", f"postgresql://signalbox:{password}@postgres:5432/signalbox"
    ):
        made.append("database-url")
    return made


def _write(path: Path, text: str) -> bool:
    """Write a file whole, or leave the one that is there; true where it was written."""
    if path.exists():
        return False
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="ascii")
    draft.chmod(0o444)
    draft.replace(path)
    return True


def main() -> None:
    """Make them in the folder that was named, and say which."""
    made = make_keys(Path(sys.argv[1]))
    sys.stdout.write(f"made {', '.join(made)}\n" if made else "all keys are there\n")


if __name__ == "__main__":
    main()
