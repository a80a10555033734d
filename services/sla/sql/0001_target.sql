-- The clocks as rows, for boards and reports. The truth that decisions are made from is the ledger's state; these rows
-- are written in the same transaction, and hold by constraint what the core promises.

CREATE TABLE target (
    target_id       text        PRIMARY KEY,
    ticket_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('first_response', 'next_response', 'resolution')),
    status          text        NOT NULL CHECK (status IN ('running', 'paused', 'breached', 'met', 'cancelled')),
    policy          text        NOT NULL,
    policy_version  text        NOT NULL,
    started_at      timestamptz NOT NULL,
    due_at          timestamptz,
    settled_at      timestamptz CHECK (settled_at >= started_at),
    breached_at     timestamptz CHECK (breached_at >= started_at),
    detected_at     timestamptz,
    CONSTRAINT target_settled CHECK ((status IN ('met', 'cancelled')) = (settled_at IS NOT NULL)),
    CONSTRAINT target_due CHECK (status NOT IN ('running', 'breached') OR due_at IS NOT NULL),
    CONSTRAINT target_breach_is_whole CHECK ((breached_at IS NULL) = (detected_at IS NULL)),
    CONSTRAINT target_breach_is_the_deadline CHECK (breached_at = due_at),
    CONSTRAINT target_noticed_after CHECK (detected_at >= breached_at),
    CONSTRAINT target_broken CHECK ((status = 'breached') <= (breached_at IS NOT NULL)),
    CONSTRAINT target_not_broken CHECK (status NOT IN ('running', 'paused') OR breached_at IS NULL),
    CONSTRAINT target_settled_late CHECK (breached_at IS NULL OR settled_at IS NULL OR settled_at > breached_at)
) WITH (fillfactor = 70);
COMMENT ON COLUMN target.status IS 'breached: past its deadline and still open; a target met late is met, with breached_at';
COMMENT ON COLUMN target.due_at IS 'null while a pause hides the deadline';
COMMENT ON COLUMN target.breached_at IS 'the deadline, while the breach stands; null again once it is retracted';
CREATE UNIQUE INDEX target_one_open ON target (ticket_id, kind) WHERE status IN ('running', 'paused', 'breached');
CREATE INDEX target_open ON target (kind, status) WHERE status IN ('running', 'paused', 'breached');
CREATE INDEX target_conversation ON target (conversation_id);

-- Every breach that was told, also those taken back. A second one of the same target, with the first still standing,
-- fails the transaction: nobody hears of a breach twice.
CREATE TABLE breach (
    breach_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target_id    text        NOT NULL,
    breached_at  timestamptz NOT NULL,
    detected_at  timestamptz NOT NULL CHECK (detected_at >= breached_at),
    answered_at  timestamptz CHECK (answered_at <= breached_at),
    retracted_at timestamptz,
    CONSTRAINT breach_retraction_is_whole CHECK ((answered_at IS NULL) = (retracted_at IS NULL))
);
CREATE UNIQUE INDEX breach_standing ON breach (target_id) WHERE retracted_at IS NULL;
CREATE INDEX breach_time ON breach (breached_at);
