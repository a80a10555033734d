"""`python -m services.sla serve|check`."""

import sys

from services.sla.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
