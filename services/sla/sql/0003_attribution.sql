-- Where the time of ended clocks went, a row a clock (and one for a solved ticket as a whole, by its own id). A clock that ran on
-- and ended again has its row put right.
CREATE TABLE attribution (
    target_id       text        PRIMARY KEY,
    ticket_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    target          text        NOT NULL,
    policy          text        NOT NULL,
    queue           text        NOT NULL,
    channel         text        NOT NULL,
    priority        smallint,
    calendar        text        NOT NULL,
    outcome         text        NOT NULL CHECK (outcome IN ('met', 'cancelled', 'solved')),
    was_breached    boolean     NOT NULL,
    started_at      timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    queue_ms        bigint      NOT NULL CHECK (queue_ms >= 0),
    offer_ms        bigint      NOT NULL CHECK (offer_ms >= 0),
    work_ms         bigint      NOT NULL CHECK (work_ms >= 0),
    pause_ms        bigint      NOT NULL CHECK (pause_ms >= 0),
    closed_ms       bigint      NOT NULL CHECK (closed_ms >= 0),
    elapsed_ms      bigint      NOT NULL,
    by_queue        jsonb       NOT NULL,
    CONSTRAINT attribution_adds_up CHECK (queue_ms + offer_ms + work_ms + pause_ms + closed_ms = elapsed_ms),
    CONSTRAINT attribution_in_order CHECK (ended_at >= started_at)
) WITH (fillfactor = 90);
COMMENT ON COLUMN attribution.by_queue IS '[{queue, queue_ms, offer_ms, work_ms}], in the order in which the ticket came to them';
CREATE INDEX attribution_ended ON attribution (ended_at);
CREATE INDEX attribution_ticket ON attribution (ticket_id);

-- Orders to work out open deadlines anew. Every process looks for the latest; one that includes breaches judges those anew of the
-- tickets that were open at `ordered_at`, once each.
CREATE TABLE recount_order (
    order_id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    includes_breaches boolean     NOT NULL,
    ordered_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    ordered_by        text        NOT NULL DEFAULT session_user
);
CREATE INDEX recount_order_breaches ON recount_order (order_id) WHERE includes_breaches;
