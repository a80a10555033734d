#!/app/.venv/bin/python
"""`signalbox` as the first process of a container: SIGTERM ends it from its first moment on.

The kernel gives process 1 no default for a signal (pid_namespaces(7)). Until a service has a handler of its own, which
takes about a second, and in a command such as `db migrate` for good, SIGTERM would be lost, and the container would stand
until it is killed. So this says what the default would be for any other process: end at once. A service then replaces it
with its own orderly end. No init process is needed for that, and none for reaping: a service starts no processes.
"""

import os
import signal

STATUS = 128 + signal.SIGTERM
"""What a shell, Docker and Kubernetes show of a process that SIGTERM ended."""


def main() -> None:
    """Run the command that was typed."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(STATUS))
    # Afterwards, since this is what takes so long.
    from cli.main import main as run

    run()


if __name__ == "__main__":
    main()
