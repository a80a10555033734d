"""Every channel's adapter as a target of `bench.fuzz`: its recorded deliveries, changed, read and proved.

The recorded deliveries are those of the tests (`tests/fixtures/ingest`), so this runs in a checkout. Each input is read
under one of the header sets that were recorded with them (media type, event name, what was fetched), and shown to `verify`
as a request too, which must refuse or accept and never raise.
"""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from services.ingest import adapters
from services.ingest.adapters.channel import Channel, Delivery, Request

ROOT: Final = Path(__file__).resolve().parent.parent
FIXTURES: Final = ROOT / "tests" / "fixtures" / "ingest"
NOW: Final = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SECRET: Final = "a-secret-of-the-fuzzer"  # noqa: S105 - opens nothing
TOKENS: Final = (
    b'{}', b'[]', b'null', b'""', b'"\\u0000"', b'"\\ud800"', b'-1', b'1e400', b'99999999999999999999999', b'true',
    b'[[[[', b'}}', b'"id":', b'"type":', b'\\', b'\xff\xfe', b'\x00', b'&', b'=', b'%00', b'<a>', b'&lt;', b'\r\n\r\n',
)  # fmt: skip


def _body(case: dict[str, Any]) -> bytes:
    if "body_base64" in case:
        return base64.b64decode(case["body_base64"])
    body = case.get("body", "")
    return (
        body.encode("utf-8", "surrogatepass")
        if isinstance(body, str)
        else json.dumps(body).encode()
    )


def _recorded(name: str) -> tuple[tuple[bytes, ...], tuple[dict[str, str], ...]]:
    """Return the bodies and the header sets recorded for a channel."""
    bodies: list[bytes] = []
    headers: list[dict[str, str]] = [{"content-type": "application/json"}]
    for path in sorted((FIXTURES / name).glob("*.json")):
        if path.name == "verify.json" or path.name.endswith(".expected.json"):
            continue
        case = json.loads(path.read_text("utf-8"))
        bodies.append(_body(case))
        known = {key.lower(): value for key, value in case.get("headers", {}).items()}
        if known and known not in headers:
            headers.append(known)
    return tuple(bodies) or (b"{}",), tuple(headers)


def _reader(channel: Channel, headers: tuple[dict[str, str], ...]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        shown = headers[len(data) % len(headers)]
        if channel.verify is not None:
            request = Request(
                "POST", f"https://in.example/v1/channels/{channel.name}/a", shown, data
            )
            channel.verify(request, {"secret": SECRET}, NOW)
        channel.scrub(data)
        return channel.parse(Delivery(channel.name, "a", data, NOW, headers=shown))

    return read


Named = tuple[str, Callable[[bytes], object], tuple[bytes, ...], tuple[bytes, ...]]


def targets() -> list[Named]:
    """Return name, parser, seeds and tokens of every channel but mail, whose parts are targets of their own."""
    made: list[Named] = []
    for name, channel in sorted(adapters.CHANNELS.items()):
        if name == "email":
            continue
        seeds, headers = _recorded(name)
        made.append((f"channel-{name}", _reader(channel, headers), seeds, TOKENS))
    return made
