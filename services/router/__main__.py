"""`python -m services.router serve|check [--stage router.tickets|router.assignment]`."""

import sys

from services.router.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
