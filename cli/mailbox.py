"""A mail server on this machine that keeps what is sent, one `.eml` file a mail, and delivers nothing."""

import asyncio
import itertools
import re
import time
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

BYTES_MAX: Final = 25 * 1024 * 1024

_UNSAFE = re.compile(r"[^A-Za-z0-9@.+-]+")


class Keeper:
    """Keeps each mail as a file; a mail is answered with 250 only when its file is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Keep a mail."""
        del server, session
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        await asyncio.to_thread(self._keep, next(self._numbers), envelope.rcpt_tos, content)
        return "250 2.0.0 Kept"

    def _keep(self, number: int, recipients: list[str], content: bytes) -> None:
        to = _UNSAFE.sub("_", recipients[0] if recipients else "nobody")[:60]
        path = self._folder / f"{time.strftime('%H%M%S')}-{number:05d}-{to}.eml"
        draft = path.with_suffix(".part")
        draft.write_bytes(content)
        draft.replace(path)


async def listen(folder: Path, port: int) -> asyncio.Server:
    """Return a mail server on the loopback address that keeps mails in an existing folder; the caller closes it."""
    keeper = Keeper(folder)
    loop = asyncio.get_running_loop()

    def session() -> SMTP:
        return SMTP(
            keeper,
            data_size_limit=BYTES_MAX,
            enable_SMTPUTF8=True,
            decode_data=False,
            hostname="mailbox.invalid",
            ident="signalbox local mailbox",
            loop=loop,
        )

    return await loop.create_server(session, "127.0.0.1", port)


def headers(folder: Path) -> list[dict[str, Any]]:
    """Return the headers of the mails that were kept, in the order in which they came."""
    from email import message_from_bytes
    from email.policy import default

    found = []
    for path in sorted(folder.glob("*.eml")):
        mail = message_from_bytes(path.read_bytes(), policy=default)
        found.append(
            {
                "path": path,
                "message_id": str(mail["Message-ID"] or ""),
                "to": str(mail["To"] or ""),
                "subject": str(mail["Subject"] or ""),
            }
        )
    return found
