"""Every series of ingest, each declared once."""

from chassis import metrics

ROUTES = ("forms", "events", "messages", "commands", "agents", "offers")
REFUSALS = (
    "unauthorized", "forbidden", "not_found", "too_large", "too_slow", "unsupported_type", "invalid", "conflict",
    "stale", "disconnected", "too_many",
)  # fmt: skip
OUTCOMES = ("message", "duplicate", "ignored", "parked", "repeated_input")

ACCEPTED = metrics.counter(
    "signalbox_ingest_accepted_total",
    "Inputs answered 2xx (or 250), durable by then, by way in. Repeats of an idempotency key are not counted again.",
    {"way": (*ROUTES, "smtp", "imap")},
)
REPEATED = metrics.counter(
    "signalbox_ingest_repeated_total",
    "Requests that were the same again under the same idempotency key, answered with the first answer.",
    {"way": (*ROUTES, "smtp", "imap")},
)
REFUSED = metrics.counter(
    "signalbox_ingest_refused_total",
    "Requests refused for what the sender did, by reason.",
    {"way": ROUTES, "reason": REFUSALS},
)
UNAVAILABLE = metrics.counter(
    "signalbox_ingest_unavailable_total",
    "Inputs put off (503, 451) because the database was away. Senders try again; nothing is lost.",
    {"way": (*ROUTES, "smtp", "imap")},
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
            "bad_address",
            "too_many_connections",
            "unstorable",
            "failed",
        )
    },
)
SMTP_CONNECTIONS = metrics.gauge("signalbox_ingest_smtp_connections", "SMTP connections open now.")
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
    {"reason": ("spam", "loop", "bounce_unmatched", "automatic_unmatched", "empty")},
)
SUSPICIONS = metrics.counter(
    "signalbox_ingest_suspicious_total",
    "Messages that claimed a conversation and were not believed, or joined with care.",
)
SECRETS_MISSING = metrics.gauge(
    "signalbox_ingest_secrets_missing",
    "Secrets that channels.yaml names and that are not there; what they open stays shut.",
)
PARSE_SECONDS = metrics.histogram(
    "signalbox_ingest_parse_seconds", "Reading the deliveries of one batch."
)
