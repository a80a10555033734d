"""NDJSON on standard input, NDJSON in the same order on standard output, one line an input.

A line that cannot be handled answers `{"id": …, "error": "…"}`, and the exit code stays 0.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

LineFunction = Callable[[object], dict[str, object]]


def run(function: LineFunction) -> None:
    """Answer standard input, line by line as it comes."""
    out = sys.stdout.buffer
    for answer in answers(function, sys.stdin.buffer):
        out.write(answer + b"\n")
        out.flush()


def answers(function: LineFunction, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Answer each line that is not blank, in order."""
    import msgspec

    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        try:
            asked = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield msgspec.json.encode({"id": None, "error": f"line: is not JSON ({error})"})
            continue
        yield msgspec.json.encode(function(asked))
