"""Raw mails out of files: `.eml` files, mbox files, and folders of both (Maildir too, whose files are mails).

An mbox is split where an empty line (or the file's beginning) is followed by `From `, and `>From ` lines lose one `>`
(the mboxrd convention). Files are read one at a time, mails of an mbox too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.ingest.adapters.mime import MAIL_BYTES_MAX

SKIPPED_SUFFIXES: Final = frozenset(
    {".json", ".yaml", ".yml", ".md", ".txt", ".gitattributes", ".idx", ".lock"}
)


class ImportProblem(ValueError):
    """A path cannot be imported; says which and why."""


@dataclass(frozen=True, slots=True)
class RawMail:
    """A mail as it lies there, and where: the file, and its number within an mbox (from 1)."""

    source: str
    raw: bytes


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(5) == b"From "


def _unquoted(line: bytes) -> bytes:
    return line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line


def _mbox(path: Path) -> Iterator[RawMail]:
    number = 0
    lines: list[bytes] = []
    size = 0
    after_empty = True
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"From ") and after_empty:
                if number:
                    yield RawMail(f"{path}#{number}", b"".join(lines))
                number += 1
                lines, size = [], 0
            else:
                size += len(line)
                if size > MAIL_BYTES_MAX:
                    raise ImportProblem(
                        f"{path}: mail {number} has more than {MAIL_BYTES_MAX} bytes"
                    )
                lines.append(_unquoted(line))
            after_empty = not line.strip(b"\r\n")
    if number:
        yield RawMail(f"{path}#{number}", b"".join(lines))


def _file(path: Path) -> Iterator[RawMail]:
    try:
        size = path.stat().st_size
        if _is_mbox(path):
            yield from _mbox(path)
        elif size > MAIL_BYTES_MAX:
            raise ImportProblem(f"{path}: has {size} bytes; at most {MAIL_BYTES_MAX} are taken")
        else:
            yield RawMail(str(path), path.read_bytes())
    except OSError as error:
        raise ImportProblem(f"{path}: cannot be read: {error.strerror}") from None


def mails(path: Path) -> Iterator[RawMail]:
    """Return the mails of a file, or of all files below a folder in the order of their names.

    Raises:
        ImportProblem: the path does not exist, cannot be read, or holds a mail that is too large.
    """
    if not path.exists():
        raise ImportProblem(f"{path}: does not exist")
    if path.is_file():
        yield from _file(path)
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
        if found.is_file() and not hidden and found.suffix.lower() not in SKIPPED_SUFFIXES:
            yield from _file(found)
