"""`python -m chassis.local [Kafka version]`: writes the lock of Kafka's jars anew."""

import sys
from collections.abc import Sequence

from chassis.local.jars import LOCK_FILE, JarLock, write_lock


def main(arguments: Sequence[str]) -> int:
    """Resolves the version given, or the version that the lock has."""
    version = arguments[0] if arguments else JarLock.load().kafka_version
    lock = write_lock(version)
    sys.stdout.write(f"{LOCK_FILE.name}: {len(lock.jars)} jars for Kafka {version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
