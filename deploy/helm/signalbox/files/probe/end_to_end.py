# ruff: noqa: INP001 - the chart gives it to `python -c`
"""Post a message to a form, and wait until its ticket stands in a queue. `end_to_end.py URL SECONDS`."""

import asyncio
import json
import sys
import time
import urllib.request

import asyncpg

from chassis.settings import Settings, load_settings

QUEUED = """
SELECT t.reference, t.status, t.queue FROM router.ticket_message m JOIN router.ticket t USING (ticket_id)
 WHERE m.input_id = $1
"""


def post(url: str) -> str:
    """Post the message; return the id that the gateway gave it when it was stored."""
    body = {
        "name": "helm test",
        "email": "helm-test@signalbox.invalid",
        "subject": "helm test",
        "message": "A test of the installation. Nobody waits for an answer.",
    }
    request = urllib.request.Request(  # noqa: S310 - the chart's own address
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
        return str(json.load(answer)["id"])


async def find(input_id: str, seconds: float) -> int:
    """Wait for the ticket; return the exit code."""
    until = time.monotonic() + seconds
    connection = await asyncpg.connect(load_settings(Settings).dsn, timeout=10)
    try:
        while time.monotonic() < until:
            row = await connection.fetchrow(QUEUED, input_id)
            if row is not None:
                print(f"{input_id} is {row['reference']}: {row['status']} in {row['queue']}")  # noqa: T201
                return 0
            await asyncio.sleep(0.5)
    finally:
        await connection.close()
    print(f"{input_id} was stored and has no ticket after {seconds:.0f} s", file=sys.stderr)  # noqa: T201
    return 1


sys.exit(asyncio.run(find(post(sys.argv[1]), float(sys.argv[2]))))
