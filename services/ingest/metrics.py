"""Every series of ingest, each declared once."""

from chassis import metrics

ROUTES = (
    "forms",
    "events",
    "messages",
    "commands",
    "agents",
    "offers",
    "channels",
    "webchat",
    "scim",
    "tickets",
    "feedback",
)
WAYS = (*ROUTES, "smtp", "imap", "poll", "read_back")
REFUSALS = (
    "unauthorized", "forbidden", "not_found", "too_large", "too_slow", "unsupported_type", "invalid", "conflict",
    "stale", "disconnected", "too_many", "missing_signature", "bad_signature", "bad_token", "no_secret",
    "wrong_method", "malformed", "unknown_key", "moved_on",
)  # fmt: skip
OUTCOMES = ("message", "duplicate", "ignored", "parked", "repeated_input")

ACCEPTED = metrics.counter(
    "signalbox_ingest_accepted_total",
    "Inputs answered 2xx (or 250), durable by then, by way in. Repeats of an idempotency key are not counted again.",
    {"way": WAYS},
)
REPEATED = metrics.counter(
    "signalbox_ingest_repeated_total",
    "Requests that were the same again under the same idempotency key, answered with the first answer.",
    {"way": WAYS},
)
REFUSED = metrics.counter(
    "signalbox_ingest_refused_total",
    "Requests refused for what the sender did, by reason.",
    {"way": ROUTES, "reason": REFUSALS},
)
UNAVAILABLE = metrics.counter(
    "signalbox_ingest_unavailable_total",
    "Inputs put off (503, 451) because the database was away. Senders try again; nothing is lost.",
    {"way": WAYS},
)
ACCEPT_SECONDS = metrics.histogram(
    "signalbox_ingest_accept_seconds",
    "From a whole request to its durable answer.",
    {"way": ROUTES},
)
SMTP_REFUSED = metrics.counter(
    "signalbox_ingest_smtp_refused_total",
    "Recipients and mails refused by the SMTP listener, by reason.",
    {
        "reason": (
            "unknown_recipient",
            "bare_line_end",
            "bad_address",
            "too_many_connections",
            "unstorable",
            "failed",
        )
    },
)
WEBCHAT_LISTENERS = metrics.gauge(
    "signalbox_ingest_webchat_listeners",
    "Web chats that wait for news now, by socket or by poll.",
)
CONFLICTS = (
    "already_solved", "closed", "merged", "is_spam", "not_spam", "not_merged", "not_resting", "not_assignee", "already_there",
    "merge_underway", "owner_forced", "ticket_unknown", "reservation_expired", "reservation_unknown", "not_yours",
    "facts_missing", "cause_required", "queue_unknown", "queue_not_technical", "version_changed",
    "promise_not_in_the_future", "promise_too_far", "promise_window_empty", "promise_with_solution", "promise_window_past",
    "called_in_the_future", "called_before_ticket",
    "other",
)  # fmt: skip
TICKET_CONFLICTS = metrics.counter(
    "signalbox_ingest_conflicts_total",
    "Commands and answers to offers told that the ticket has moved on (409, 412), by the router's reason, at once or after"
    " a wait. `reservation_expired` that rises: agents answer slower than offers last.",
    {"reason": CONFLICTS},
)
TICKET_UNJUDGED = metrics.counter(
    "signalbox_ingest_unjudged_total",
    "Requests passed on although the view could not be relied on: the ticket is unknown to it, it is behind, another request of"
    " the ticket is under way, or the database was away. The router judges them.",
    {"why": ("unknown", "behind", "in_flight", "away")},
)
TICKET_WAITS = metrics.counter(
    "signalbox_ingest_waits_total",
    "Requests that preferred to wait for what becomes of them, by how that ended. `turned_away`: too many waited.",
    {"outcome": ("done", "refused", "time_over", "turned_away")},
)
TICKET_WAITERS = metrics.gauge(
    "signalbox_ingest_waiters", "Requests that wait for what becomes of them now."
)
SMTP_CONNECTIONS = metrics.gauge("signalbox_ingest_smtp_connections", "SMTP connections open now.")
ATTACHMENTS = metrics.counter(
    "signalbox_ingest_attachments_total",
    "Attachments of mails: kept, refused (the message says why), or not stored because the store was away.",
    {"outcome": ("kept", "refused", "failed")},
)
IMAP_ERRORS = metrics.counter(
    "signalbox_ingest_imap_errors_total",
    "Failed looks into a mailbox; it is tried again with growing pauses.",
    {"reason": ("login", "connection", "protocol", "unavailable", "too_large", "unstorable")},
)
IMAP_LAST_LOOK = metrics.gauge(
    "signalbox_ingest_imap_last_look_timestamp_seconds",
    "When a mailbox was last read without error.",
    {"account": ()},
)
OUTCOME = metrics.counter(
    "signalbox_ingest_inputs_total",
    "Inputs decided, by what became of them (a retried batch counts again; the `outcome` table is exact).",
    {"channel": (), "outcome": OUTCOMES},
)
IGNORED = metrics.counter(
    "signalbox_ingest_ignored_total",
    "Inputs that mean nothing here, by reason.",
    {"reason": ()},
)
SUSPICIONS = metrics.counter(
    "signalbox_ingest_suspicious_total",
    "Messages that claimed a conversation and were not believed, or joined with care.",
)
LINKS = metrics.counter(
    "signalbox_ingest_customer_links_total",
    "Customers that turned out to be one (merged) or may be (suggested); a retried batch counts again.",
    {"outcome": ("merged", "suggested")},
)
SECRETS_MISSING = metrics.gauge(
    "signalbox_ingest_secrets_missing",
    "Secrets that channels.yaml names and that are not there; what they open stays shut.",
)
PARSE_SECONDS = metrics.histogram(
    "signalbox_ingest_parse_seconds", "Reading the deliveries of one batch."
)
HANDSHAKES = metrics.counter(
    "signalbox_ingest_handshakes_total",
    "Challenges of vendors answered while an address was registered or checked, by channel.",
    {"channel": ()},
)
CHANNEL_REFUSED = metrics.counter(
    "signalbox_ingest_channel_refused_total",
    "Vendors' requests refused, by channel and reason. `bad_signature` that rises after a change of a secret: the new one"
    " is not everywhere yet.",
    {"channel": (), "reason": ()},
)
LOOKS = metrics.counter(
    "signalbox_ingest_looks_total",
    "Looks into channels that are polled, and readings back, by what came of them.",
    {"channel": (), "outcome": ("done", "throttled", "unauthorized", "failed", "gone")},
)
LAST_LOOK = metrics.gauge(
    "signalbox_ingest_channel_last_look_timestamp_seconds",
    "When a polled channel's account was last looked into without error.",
    {"channel": (), "account": ()},
)
READ_BACK_WAITING = metrics.gauge(
    "signalbox_ingest_read_back_waiting",
    "Deliveries whose content is still to be read through the vendor's API.",
)
READ_BACK_OLDEST = metrics.gauge(
    "signalbox_ingest_read_back_oldest_seconds",
    "Age of the oldest delivery that waits to be read back; above a few minutes: the vendor's API or our credentials.",
)


class Way:
    """The series of one way in by HTTP, looked up once."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._accepted = ACCEPTED.labels(way)
        self._repeated = REPEATED.labels(way)
        self._seconds = ACCEPT_SECONDS.labels(way)
        self.unavailable = UNAVAILABLE.labels(way)

    def refused(self, reason: str) -> None:
        """Count a request that was refused for what its sender did."""
        REFUSED.labels(self._way, reason).inc()

    def answered(self, seconds: float, *, is_repeated: bool) -> None:
        """Count a request that is durable, and the time that it took."""
        self._seconds.observe(seconds)
        (self._repeated if is_repeated else self._accepted).inc()
