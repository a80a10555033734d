"""Attachments: kept once each, under the SHA-256 of their bytes, in a folder or in an object store.

The store is obstore (the Rust `object_store` crate): one small wheel without dependencies that speaks to S3, GCS, Azure
and folders alike, puts atomically, and retries what may be retried. fsspec would need a package of its own for each cloud, and brings
botocore, google-auth and aiohttp along. Credentials come from the environment or the machine's identity, as each cloud has it
(`AWS_…`, `GOOGLE_…`, `AZURE_…`).

The same bytes are the same object, so keeping them again changes nothing. A file past a limit, of a type that is not
kept, or with a virus in it is refused: the message goes on and says why (`Attachment.refused`). A store or a scanner that
is away raises `StoreAway`: the delivery is read again later, and no message is without what came with it.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from chassis.errors import ConfigurationError
from schemas.messages import Attachment, MessageContent
from services.ingest import metrics
from services.ingest.adapters import email
from services.ingest.adapters.channel import Delivery
from services.ingest.adapters.email import Attached
from services.ingest.settings import IngestSettings

OFF: Final = "off"
SCAN_CHUNK_BYTES: Final = 256 * 1024
SCAN_SECONDS: Final = 60.0
SCAN_ANSWER_BYTES_MAX: Final = 4_096
ENDINGS_LOOKED_AT: Final = 2
"""`invoice.pdf.exe` is refused for its last ending, and `virus.exe.` or `virus.exe.txt` for the one before it."""


MAIL_CHANNELS: Final = frozenset({"email", "gmail", "google_voice", "youmail"})


class StoreAway(ConnectionError):
    """The store or the scanner does not answer. As any lost connection, it costs the batch and no message."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} does not answer")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept: bytes of one file, bytes and files of one message, and which types are not.

    A refused type is an ending (`.exe`) or a media type (`application/x-msdownload`), in lower case.
    """

    bytes_max: int = 25 * 1024 * 1024
    total_bytes_max: int = 50 * 1024 * 1024
    count_max: int = 50
    refused_types: frozenset[str] = frozenset()

    def objection(self, file: Attached, number: int, total: int) -> str | None:
        """Return why a file is not kept, as one clause; `number` files of `total` bytes were kept before it."""
        if number >= self.count_max:
            return f"too many: {self.count_max} files of a message are kept"
        if file.size > self.bytes_max:
            return f"too large: {file.size} bytes, and at most {self.bytes_max} are kept"
        if total + file.size > self.total_bytes_max:
            return f"too large together: at most {self.total_bytes_max} bytes of a message are kept"
        endings = [f".{part}" for part in file.name.lower().rstrip(". ").split(".")[1:]]
        for kind in (*endings[-ENDINGS_LOOKED_AT:], file.media_type):
            if kind in self.refused_types:
                return f"type not kept: {kind}"
        return None


def types_of(text: str) -> frozenset[str]:
    """Return the types that a setting lists, commas between."""
    return frozenset(one.strip().lower() for one in text.split(",") if one.strip())


class Clamd:
    """A ClamAV daemon, asked by its INSTREAM command (clamd's manual page) over TCP or a Unix socket."""

    def __init__(self, address: str) -> None:
        """`address` is `host:port`, or `unix:/path/to/socket`.

        Raises:
            ConfigurationError: it is neither.
        """
        self._address = address
        self._path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        if not self._path and not (self._host and port.isascii() and port.isdigit()):
            raise ConfigurationError(
                f"SIGNALBOX_CLAMD: {address!r} is no address; write host:port, or unix:/path/to/socket"
            )
        self._port = 0 if self._path else int(port)

    async def finding(self, data: bytes) -> str | None:
        """Return what is wrong with some bytes, as one clause; None where nothing is.

        Raises:
            StoreAway: the daemon does not answer, or answers with something else.
        """
        try:
            async with asyncio.timeout(SCAN_SECONDS):
                answer = await self._ask(data)
        except (OSError, TimeoutError, asyncio.LimitOverrunError, EOFError) as error:
            raise StoreAway("the virus scanner") from error
        said = answer.decode("utf-8", "replace").strip("\x00\r\n ").removeprefix("stream: ")
        if said == "OK":
            return None
        if said.endswith(" FOUND"):
            return f"infected: {said.removesuffix(' FOUND')[:100]}"
        if "size limit exceeded" in said:
            return "too large to be scanned"
        raise StoreAway("the virus scanner")

    async def _ask(self, data: bytes) -> bytes:
        opened = (
            asyncio.open_unix_connection(self._path)
            if self._path
            else asyncio.open_connection(self._host, self._port)
        )
        reader, writer = await opened
        try:
            writer.write(b"zINSTREAM\x00")
            with contextlib.suppress(
                ConnectionError
            ):  # It hangs up on what is too large, and says so first.
                view = memoryview(data)
                for at in range(0, len(view), SCAN_CHUNK_BYTES):
                    piece = view[at : at + SCAN_CHUNK_BYTES]
                    writer.write(len(piece).to_bytes(4, "big"))
                    writer.write(piece)
                    await writer.drain()
                writer.write(b"\x00\x00\x00\x00")
                await writer.drain()
            return (await reader.read(SCAN_ANSWER_BYTES_MAX)) or _no_answer()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _no_answer() -> bytes:
    raise EOFError("the scanner said nothing")


def open_store(url: str, default_folder: Path) -> ObjectStore | None:
    """Return the store of a setting: None for `off`, `default_folder` for an empty one.

    Raises:
        ConfigurationError: the address is none, or the folder cannot be written.
    """
    if url == OFF:
        return None
    if not url or url.startswith("file:") or "://" not in url:
        folder = Path(url.removeprefix("file://")).expanduser() if url else default_folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"SIGNALBOX_ATTACHMENTS_URL: {folder} cannot be written ({error.strerror}); name a folder that can, an"
                " object store (s3://bucket/prefix, gs://…, az://…), or `off`"
            ) from None
        return LocalStore(folder)
    try:
        return from_url(url)
    except (BaseError, ValueError) as error:
        raise ConfigurationError(
            f"SIGNALBOX_ATTACHMENTS_URL cannot be used ({type(error).__name__}): write a folder, s3://bucket/prefix,"
            " gs://bucket/prefix, az://container/prefix, or `off`"
        ) from None


def default_folder() -> Path:
    """Return where attachments go unless told otherwise: beside what `signalbox up` keeps."""
    given = os.environ.get("SIGNALBOX_DATA_DIR", "").strip()
    if given:
        return Path(given).expanduser().absolute() / "attachments"
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    home = base if base.is_absolute() else Path.home() / ".local" / "state"
    return home / "signalbox" / "attachments"


def of_settings(settings: IngestSettings) -> "AttachmentStore":
    """Return the store that the settings name.

    Raises:
        ConfigurationError: the store's or the scanner's address is wrong, or the folder cannot be written.
    """
    limits = Limits(
        bytes_max=settings.attachment_bytes_max,
        total_bytes_max=settings.attachments_bytes_max,
        count_max=settings.attachments_count_max,
        refused_types=types_of(settings.attachments_refused_types),
    )
    scanner = Clamd(settings.clamd) if settings.clamd else None
    return AttachmentStore(open_store(settings.attachments_url, default_folder()), limits, scanner)


def path_of(sha256: str) -> str:
    """Return where the bytes of a hash stand in the store."""
    return f"sha256/{sha256[:2]}/{sha256}"


class AttachmentStore:
    """Keeps the files of mails. Without a store (`off`) messages tell name, type and size, and nothing is kept."""

    def __init__(
        self, store: ObjectStore | None, limits: Limits, scanner: Clamd | None = None
    ) -> None:
        self._store = store
        self._limits = limits
        self._scanner = scanner

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._store is not None

    async def kept(self, content: MessageContent, raw: bytes) -> MessageContent:
        """Return a message whose attachments name what was kept of the mail it was read from, or why it was not.

        Raises:
            StoreAway: the store or the scanner is away; nothing is lost by asking again.
        """
        if self._store is None or not content.attachments:
            return content
        files = await asyncio.to_thread(email.attached, raw)
        made: list[Attachment] = []
        number = total = 0
        for attachment, file in _paired(content.attachments, files):
            if file is None:
                made.append(attachment)
                continue
            refused = self._limits.objection(file, number, total)
            sha256 = None
            if refused is None:
                sha256, refused = await self._keep(file)
            if refused is None:
                number, total = number + 1, total + file.size
            metrics.ATTACHMENTS.labels("kept" if refused is None else "refused").inc()
            made.append(attachment.model_copy(update={"sha256": sha256, "refused": refused}))
        return content.model_copy(update={"attachments": tuple(made)})

    async def _keep(self, file: Attached) -> tuple[str | None, str | None]:
        data, sha256 = await asyncio.to_thread(_digested, file)
        finding = await self._scanner.finding(data) if self._scanner is not None else None
        if finding is not None:
            return None, finding
        assert self._store is not None
        path = path_of(sha256)
        try:
            if not await self._is_there(path, len(data)):
                await obstore.put_async(self._store, path, data)
        except (BaseError, OSError) as error:
            metrics.ATTACHMENTS.labels("failed").inc()
            raise StoreAway("the attachment store") from error
        return sha256, None

    async def remove(self, sha256: str) -> None:
        """Delete a file; one that is not there is as good as deleted.

        Raises:
            StoreAway: the store is away; ask again.
        """
        if self._store is None:
            return
        try:
            await obstore.delete_async(self._store, path_of(sha256))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StoreAway("the attachment store") from error

    async def _is_there(self, path: str, size: int) -> bool:
        assert self._store is not None
        try:
            found = await obstore.head_async(self._store, path)
        except FileNotFoundError:
            return False
        return bool(found["size"] == size)


def _digested(file: Attached) -> tuple[bytes, str]:
    data = file.data()
    return data, hashlib.sha256(data).hexdigest()


def _paired(
    told: Sequence[Attachment], files: Sequence[Attached]
) -> list[tuple[Attachment, Attached | None]]:
    """Return each attachment with its file: in order, and by name where a rule has left some out."""
    waiting: dict[tuple[str, str, int], list[Attached]] = {}
    for file in files:
        waiting.setdefault((file.name, file.media_type, file.size), []).append(file)
    made: list[tuple[Attachment, Attached | None]] = []
    for one in told:
        same = waiting.get((one.name, one.media_type, one.size))
        made.append((one, same.pop(0) if same else None))
    return made


def mail_of(delivery: Delivery) -> bytes | None:
    """Return the mail that a delivery holds, as bytes; None for deliveries of other kinds."""
    if delivery.channel not in MAIL_CHANNELS:
        return None
    if delivery.channel != "gmail" or delivery.body.lstrip()[:1] != b"{":
        return delivery.body
    try:
        told = json.loads(delivery.body)
    except ValueError:
        return None
    raw = told.get("raw") if isinstance(told, dict) else None
    if not isinstance(raw, str):
        return None
    # Gmail's API gives mails in the URL-safe alphabet, mostly without padding.
    bare = "".join(raw.split()).rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError:
        return None
