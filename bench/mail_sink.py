"""A mail server that takes every mail and keeps none: what `signalbox bench path` lets its notices go to.

Run as `python -m bench.mail_sink PORT`. One line of a command, one answer (RFC 5321); of a mail's content only its end is
looked for.
"""

import asyncio
import sys
from collections.abc import Sequence

import uvloop

ANSWERS = {
    b"EHLO": b"250-sink\r\n250 8BITMIME\r\n",
    b"DATA": b"354 go on\r\n",
    b"QUIT": b"221 bye\r\n",
}
END = b"\r\n.\r\n"


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._is_content = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer each command; swallow contents."""
        assert self._transport is not None
        self._pending += data
        while True:
            end, answer = (END, b"250 taken\r\n") if self._is_content else (b"\r\n", b"")
            head, found, rest = self._pending.partition(end)
            if not found:
                return
            self._pending = rest
            verb = b"" if self._is_content else head[:4].upper()
            self._is_content = verb == b"DATA"
            self._transport.write(answer or ANSWERS.get(verb, b"250 fine\r\n"))
            if verb == b"QUIT":
                self._transport.close()
                return


async def serve(port: int) -> None:
    """Take mails on the loopback address until terminated."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


def main(argv: Sequence[str]) -> int:
    """Serve on the given port."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
