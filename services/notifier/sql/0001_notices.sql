-- Every notice there ever was an intent or a refusal of, for counting, for the board and for the caps per recipient.
-- One row a cause: `notice_id` is derived from ticket, occasion and cause, so the primary key lets no cause make two.

CREATE TABLE notice (
    notice_id       text        PRIMARY KEY,
    ticket_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    occasion        text        NOT NULL CHECK (occasion IN ('received', 'answered', 'escalated', 'solved')),
    status          text        NOT NULL CHECK (status IN ('requested', 'sent', 'failed', 'unknown', 'suppressed')),
    recipient_hash  text,
    reason          text,
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    requested_at    timestamptz,
    settled_at      timestamptz,
    CHECK ((status = 'requested') = (settled_at IS NULL)),
    CHECK (requested_at IS NOT NULL OR status IN ('failed', 'suppressed')),
    CHECK ((requested_at IS NULL) = (recipient_hash IS NULL)),
    CHECK (status NOT IN ('failed', 'unknown', 'suppressed') OR reason IS NOT NULL)
);
COMMENT ON COLUMN notice.recipient_hash IS 'names the recipient without the address; null where nobody was to be told';
COMMENT ON COLUMN notice.requested_at IS 'when the intent was recorded; null where it was suppressed or failed before that';

CREATE INDEX notice_of_conversation ON notice (conversation_id);
CREATE INDEX notice_open ON notice (requested_at) WHERE status IN ('requested', 'unknown');
CREATE INDEX notice_to_recipient ON notice (recipient_hash, requested_at DESC)
    WHERE occasion <> 'answered' AND requested_at IS NOT NULL;
