"""`python -m services.notifier serve|check`."""

import sys

from services.notifier.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
