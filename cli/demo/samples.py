"""The day's messages: what `samples/manifest.yaml` says of each, and the bytes that are sent.

Mails are dated anew: the day happens when it is played, so that clocks run from now. The one with an absurd date keeps
it. Nothing else in a mail is changed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from cli.errors import CommandError

Fate = Literal["ticket", "joins", "duplicate", "ignored", "parked"]
Action = Literal["answer", "solve", "escalate"]

_DATE = re.compile(rb"^Date:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*", re.IGNORECASE | re.MULTILINE)
_REFERENCES = re.compile(
    rb"^References:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*", re.IGNORECASE | re.MULTILINE
)
_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_ADDRESS = re.compile(r"[^\s<>,;]+@[^\s<>,;]+")


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of the day. `about` is the number it joins or repeats, or the reason it is ignored for."""

    number: str
    file: str
    what: str
    language: str
    fate: Fate
    about: str = ""
    desk: str = ""
    action: Action | None = None
    reply: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    raw: bytes = b""

    @property
    def is_mail(self) -> bool:
        """Whether it comes by SMTP; a form comes by HTTP."""
        return self.file.startswith("mail/")

    @property
    def repeats(self) -> str | None:
        """The number of the sample it is again, if it is."""
        return self.about if self.fate == "duplicate" else None

    @property
    def joins(self) -> str | None:
        """The number of the sample whose conversation it belongs to, if it does."""
        return self.about if self.fate == "joins" else None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail with its envelope, ready for SMTP."""

    sender: str
    recipients: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A web form, ready for the gateway."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def load(folder: Path) -> tuple[Sample, ...]:
    """Read the manifest and the files that it names.

    Raises:
        CommandError: something in it cannot be played; names the file and what is wrong.
    """
    path = folder / "manifest.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = content["samples"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    samples = [_sample(folder, path, entry) for entry in entries]
    known = {sample.number for sample in samples}
    for sample in samples:
        if sample.fate in ("joins", "duplicate") and sample.about not in known:
            raise CommandError(
                f"{path}: {sample.file}: expect.{sample.fate}: there is no sample {sample.about}"
            )
    return tuple(samples)


def _sample(folder: Path, path: Path, entry: Any) -> Sample:
    try:
        file = str(entry["file"])
        fate, about = _fate(entry["expect"])
        agent = entry.get("agent") or {}
        return Sample(
            number=Path(file).name[:3],
            file=file,
            what=str(entry["what"]),
            language=str(entry["language"]),
            fate=fate,
            about=about,
            desk=str(entry.get("desk", "")),
            action=agent.get("action"),
            reply=str(agent.get("reply", "")),
            facts={str(name): str(value) for name, value in (agent.get("facts") or {}).items()},
            kinds=tuple(entry.get("kinds", ())),
            raw=(folder / file).read_bytes(),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = entry.get("file", "an entry") if isinstance(entry, dict) else "an entry"
        raise CommandError(f"{path}: {name}: {type(error).__name__}: {error}") from None
    except OSError as error:
        raise CommandError(f"{path}: {entry['file']}: cannot be read: {error.strerror}") from None


def _fate(expect: Any) -> tuple[Fate, str]:
    if expect in ("ticket", "parked"):
        return expect, ""
    if isinstance(expect, dict) and len(expect) == 1:
        name, about = next(iter(expect.items()))
        if name in ("joins", "duplicate"):
            # YAML reads a bare 029 as it likes; the number has three digits.
            return name, str(about).zfill(3)
        if name == "ignored":
            return name, str(about)
    raise ValueError(f"expect: {expect!r}")


def mail_of(sample: Sample, now: datetime, answered: str | None = None) -> Mail:
    """Return the mail to send. `answered` is the Message-ID of our mail that it answers, where there is one."""
    body = _BARE_LINE_END.sub(b"\r\n", sample.raw)
    head, separator, rest = body.partition(b"\r\n\r\n")
    if separator and not {"absurd_date", "junk"} & set(sample.kinds):
        head = _DATE.sub(f"Date: {format_datetime(now)}".encode(), head, count=1)
    if answered is not None and re.search(rb"(?im)^In-Reply-To:", head):
        # As mail programs do: the newest Message-ID of the thread comes last.
        head = _REFERENCES.sub(lambda found: found[0] + b"\r\n " + answered.encode(), head, count=1)
    whole = head + separator + rest
    return Mail(
        sender=_path(head, b"return-path"),
        recipients=_recipients(head),
        body=whole if whole.endswith(b"\r\n") else whole + b"\r\n",
    )


def _header(head: bytes, name: bytes) -> str:
    found = re.search(rb"(?im)^" + re.escape(name) + rb":([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", head)
    return found[1].decode("utf-8", "replace") if found else ""


def _path(head: bytes, name: bytes) -> str:
    found = _ADDRESS.findall(_header(head, name))
    return found[0] if found and found[0].isascii() else ""


def _recipients(head: bytes) -> tuple[str, ...]:
    found = [address for address in _ADDRESS.findall(_header(head, b"to")) if address.isascii()]
    return tuple(dict.fromkeys(found)) or ("support@lantern-oak.example",)


def form_of(sample: Sample) -> Form:
    """Return the form to post."""
    content = json.loads(sample.raw)
    body = json.dumps(content["fields"], ensure_ascii=False).encode()
    return Form(f"/v1/forms/{content['form']}", body, dict(content.get("headers", {})))


def digest(body: bytes) -> str:
    """Return a name for what was sent, by its bytes: the driver finds its own messages again by it."""
    whole = _BARE_LINE_END.sub(b"\r\n", body)
    return hashlib.sha256(whole.rstrip(b"\r\n")).hexdigest()
