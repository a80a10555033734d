"""The errors of the chassis, drawn as a tree.

SignalboxError
├── InvalidEvent        a record nobody can handle: parked, with reason and bytes
├── Fenced              another owner holds the lease: forget everything, ask Kafka, acquire again
├── Conflict            a shared row was taken by someone else meanwhile: read again, decide again
├── Refused             what a batch holds cannot be stored, and nothing of it was: take it again in pieces
├── PolicyError         a policy file says something that cannot work: refused, with file, path and value
├── ConfigurationError  a setting is missing or wrong: one sentence that says what to do
└── Unavailable         a database or broker is away: back off, or 503
"""


class SignalboxError(Exception):
    """Root of all errors that Signalbox raises on purpose."""


class InvalidEvent(SignalboxError):
    """A record cannot be handled. `reason` is one of `chassis.deadletters.Reason`; `detail` names the field."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Fenced(SignalboxError):
    """The lease's epoch is not ours any more; `tasks` are the numbers that were taken."""

    def __init__(self, tasks: tuple[int, ...]) -> None:
        super().__init__(f"the lease of task {', '.join(map(str, tasks))} has another owner")
        self.tasks = tasks


class Conflict(SignalboxError):
    """A row that this batch wanted was claimed by another task between reading and writing.

    The transaction is undone, and known to be.
    """


class Refused(SignalboxError):
    """The database, or the store that speaks to it, cannot take what a batch holds; its cause says why.

    The transaction is undone, and known to be: nothing of the batch was written, and the connection still answers. So
    the same batch would be refused for ever, and its parts may be tried.
    """


class PolicyError(SignalboxError):
    """A policy is refused. Says which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        shown = repr(value)
        super().__init__(
            f"{file}: {path}: {shown if len(shown) <= 120 else shown[:117] + '…'}: {allowed}"
        )
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


class ConfigurationError(SignalboxError):
    """A setting is missing or wrong; the message is one sentence that says what to do."""


class Unavailable(SignalboxError):
    """Something we stand on does not answer; `retry_after` is when asking again makes sense, in seconds."""

    def __init__(self, what: str, retry_after: float = 2.0) -> None:
        super().__init__(f"{what} does not answer")
        self.what = what
        self.retry_after = retry_after
