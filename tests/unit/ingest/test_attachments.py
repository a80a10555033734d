"""Attachments are kept once each under their hash, refused with a reason, and never lost when the store is away."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from chassis.errors import ConfigurationError
from schemas.messages import MessageContent
from services.ingest.adapters import attachments, email
from services.ingest.adapters.attachments import AttachmentStore, Clamd, Limits, StoreAway
from services.ingest.adapters.channel import Delivery

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def mail(*files: tuple[str, bytes]) -> bytes:
    parts = ["Content-Type: text/plain\r\n\r\nSee the files"]
    for name, data in files:
        body = base64.encodebytes(data).decode().replace("\n", "\r\n")
        parts.append(
            f'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="{name}"\r\n'
            f"Content-Transfer-Encoding: base64\r\n\r\n{body}"
        )
    joined = "".join(f"--b\r\n{part}\r\n" for part in parts)
    head = "From: ada@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    return f"{head}{joined}--b--\r\n".encode()


def content(raw: bytes) -> MessageContent:
    (message,) = email.parse(Delivery("email", "support", raw, NOW)).messages
    return message


def keeping(limits: Limits | None = None, scanner: Clamd | None = None) -> AttachmentStore:
    return AttachmentStore(MemoryStore(), limits or Limits(), scanner)


async def kept(
    store: AttachmentStore, *files: tuple[str, bytes]
) -> list[tuple[str | None, str | None]]:
    raw = mail(*files)
    made = await store.kept(content(raw), raw)
    return [(one.sha256, one.refused) for one in made.attachments]


async def test_the_same_bytes_are_one_object_whatever_they_are_called(tmp_path: Path) -> None:
    store = attachments.open_store(str(tmp_path), tmp_path)
    keeper = AttachmentStore(store, Limits())
    digest = hashlib.sha256(b"abc").hexdigest()
    for _ in range(2):
        assert await kept(keeper, ("a.txt", b"abc"), ("b.txt", b"abc")) == [(digest, None)] * 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        f"sha256/{digest[:2]}/{digest}"
    ]
    assert files[0].read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("limits", "files", "reasons"),
    [
        (
            Limits(bytes_max=3),
            [b"abc", b"abcd"],
            [None, "too large: 4 bytes, and at most 3 are kept"],
        ),
        (
            Limits(total_bytes_max=5),
            [b"abc", b"abc", b"ab"],
            [None, "too large together: at most 5 bytes of a message are kept", None],
        ),
        (
            Limits(count_max=1),
            [b"a", b"b"],
            [None, "too many: 1 files of a message are kept"],
        ),
    ],
)
async def test_a_file_past_a_limit_is_refused_and_its_neighbours_are_kept(
    limits: Limits, files: list[bytes], reasons: list[str | None]
) -> None:
    named = [(f"{number}.txt", data) for number, data in enumerate(files)]
    told = await kept(keeping(limits), *named)
    assert [reason for _, reason in told] == reasons
    assert all((sha256 is None) == (reason is not None) for sha256, reason in told)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.exe", "type not kept: .exe"),
        ("A.EXE", "type not kept: .exe"),
        ("invoice.pdf.exe", "type not kept: .exe"),
        ("invoice.exe.txt", "type not kept: .exe"),
        ("a.exe. ", "type not kept: .exe"),
        ("exe", None),
        ("a.exe.1.txt", None),
    ],
)
async def test_a_type_that_is_not_kept_is_known_by_its_endings(
    name: str, reason: str | None
) -> None:
    limits = Limits(refused_types=attachments.types_of(" .EXE , application/x-evil"))
    ((_, refused),) = await kept(keeping(limits), (name, b"x"))
    assert refused == reason


async def test_without_a_store_messages_stay_as_they_are() -> None:
    raw = mail(("a.txt", b"abc"))
    message = content(raw)
    assert await AttachmentStore(None, Limits()).kept(message, raw) is message
    assert attachments.open_store("off", Path("/nowhere")) is None


async def test_a_store_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    store = attachments.open_store(str(tmp_path / "x"), tmp_path)
    (tmp_path / "x").rename(tmp_path / "gone")
    (tmp_path / "x").write_text("in the way")
    with pytest.raises(StoreAway, match="attachment store does not answer"):
        await kept(AttachmentStore(store, Limits()), ("a.txt", b"abc"))


@pytest.mark.parametrize("url", ["ftp://x/y", "nonsense://"])
def test_an_address_that_is_no_store_is_said_in_a_sentence(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SIGNALBOX_ATTACHMENTS_URL"):
        attachments.open_store(url, tmp_path)


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        attachments.open_store(str(tmp_path / "file" / "below"), tmp_path)


def test_a_mail_is_found_in_each_kind_of_delivery() -> None:
    raw = mail(("a.txt", b"abc"))
    fetched = json.dumps({"raw": base64.urlsafe_b64encode(raw).decode().rstrip("=")}).encode()
    assert attachments.mail_of(Delivery("email", "a", raw, NOW)) == raw
    assert attachments.mail_of(Delivery("gmail", "a", fetched, NOW)) == raw
    assert attachments.mail_of(Delivery("gmail", "a", raw, NOW)) == raw
    assert attachments.mail_of(Delivery("gmail", "a", b"{}", NOW)) is None
    assert attachments.mail_of(Delivery("zendesk", "a", raw, NOW)) is None


# --------------------------------------------------------------------------------------------- scanner


@asynccontextmanager
async def scanning(answer: bytes, seen: list[bytes]) -> AsyncIterator[Clamd]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil(b"\x00") == b"zINSTREAM\x00"
        data = b""
        while size := int.from_bytes(await reader.readexactly(4), "big"):
            data += await reader.readexactly(size)
        seen.append(data)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield Clamd(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"stream: OK\x00", None),
        (b"stream: Eicar-Test-Signature FOUND\x00", "infected: Eicar-Test-Signature"),
        (b"INSTREAM size limit exceeded. ERROR\x00", "too large to be scanned"),
    ],
)
async def test_a_file_is_kept_only_if_the_scanner_finds_nothing(
    answer: bytes, reason: str | None
) -> None:
    seen: list[bytes] = []
    async with scanning(answer, seen) as scanner:
        ((sha256, refused),) = await kept(keeping(scanner=scanner), ("a.bin", b"x" * 600_000))
    assert seen == [b"x" * 600_000]
    assert refused == reason
    assert (sha256 is None) == (reason is not None)


@pytest.mark.parametrize("answer", [b"", b"UNKNOWN COMMAND\x00"])
async def test_a_scanner_that_says_nothing_or_nonsense_is_away(answer: bytes) -> None:
    async with scanning(answer, []) as scanner:
        with pytest.raises(StoreAway, match="virus scanner"):
            await kept(keeping(scanner=scanner), ("a.bin", b"x"))


async def test_a_scanner_that_cannot_be_reached_is_away(tmp_path: Path) -> None:
    with pytest.raises(StoreAway):
        await kept(keeping(scanner=Clamd(f"unix:{tmp_path}/none")), ("a.bin", b"x"))


@pytest.mark.parametrize("address", ["clamd", "host:", ":3310", "host:port"])
def test_an_address_that_is_no_scanner_is_said_in_a_sentence(address: str) -> None:
    with pytest.raises(ConfigurationError, match="SIGNALBOX_CLAMD"):
        Clamd(address)
