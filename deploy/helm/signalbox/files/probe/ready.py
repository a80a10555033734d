# ruff: noqa: INP001 - the chart gives it to `python -c`
"""Ask a part of Signalbox until it says that it is ready; what it says in the end is shown. `ready.py URL SECONDS`."""

import sys
import time
import urllib.error
import urllib.request

url, seconds = sys.argv[1], float(sys.argv[2])
until = time.monotonic() + seconds
while True:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the chart's own address
            print(answer.read().decode())  # noqa: T201
            sys.exit(0)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
    except OSError as error:
        said = str(error)
    if time.monotonic() > until:
        sys.exit(f"{url} is not ready after {seconds:.0f} s: {said}")
    time.sleep(1.0)
