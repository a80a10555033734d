"""`python -m services.ingest serve [--stage gateway|normaliser|all] | check`."""

import sys

from services.ingest.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
