-- One row a ticket, the history of its clocks, and the shop's orders: what reports, `sla explain` and the gauges read.
-- No decision is made from them; they are written in the transaction of the decision that they tell of.

CREATE TABLE ticket_case (
    ticket_id              text             PRIMARY KEY,
    conversation_id        text             NOT NULL,
    reference              text             NOT NULL,
    opened_queue           text             NOT NULL,
    queue                  text             NOT NULL,
    channel                text             NOT NULL,
    account                text             NOT NULL,
    priority               smallint         NOT NULL CHECK (priority BETWEEN 1 AND 4),
    language               text,
    customer_tier          text,
    status                 text             NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'solved', 'closed', 'spam', 'merged')),
    opened_at              timestamptz      NOT NULL,
    first_answered_at      timestamptz,
    first_response_open_us bigint           CHECK (first_response_open_us >= 0),
    solved_at              timestamptz,
    closed_at              timestamptz,
    reopened               integer          NOT NULL DEFAULT 0,
    escalated              integer          NOT NULL DEFAULT 0,
    open_during            tstzmultirange   NOT NULL,
    ended_at               timestamptz      GENERATED ALWAYS AS (
        CASE WHEN upper_inf(open_during) THEN NULL ELSE coalesce(upper(open_during), opened_at) END
    ) STORED
) WITH (fillfactor = 80);
COMMENT ON COLUMN ticket_case.opened_queue IS 'where it was opened: the queue that owed the first response';
COMMENT ON COLUMN ticket_case.first_response_open_us IS 'open, unpaused microseconds to the first answer, as the clock counted them; null without such a clock';
COMMENT ON COLUMN ticket_case.solved_at IS 'when it was solved last; null while it is open';
COMMENT ON COLUMN ticket_case.open_during IS 'when somebody had to work on it: from the opening to the solution, and again from each reopening';
COMMENT ON COLUMN ticket_case.ended_at IS 'null while it is open';
CREATE INDEX ticket_case_opened ON ticket_case (opened_at);
CREATE INDEX ticket_case_ended ON ticket_case (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX ticket_case_open ON ticket_case (queue, opened_at) WHERE ended_at IS NULL;
CREATE INDEX ticket_case_reference ON ticket_case (reference);

-- What was told of each clock, in order: the events themselves, for `sla explain`.
CREATE TABLE clock_event (
    event_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id text        NOT NULL,
    type      text        NOT NULL,
    at        timestamptz NOT NULL,
    data      jsonb       NOT NULL
);
CREATE INDEX clock_event_ticket ON clock_event (ticket_id);

-- What the shop sold, a row a day and shop: `signalbox sla orders import`.
CREATE TABLE order_volume (
    day    date    NOT NULL,
    shop   text    NOT NULL DEFAULT '',
    orders integer NOT NULL CHECK (orders >= 0),
    PRIMARY KEY (day, shop)
);

-- A warned clock is at risk until it is answered or breaks.
ALTER TABLE target ADD COLUMN is_warned boolean NOT NULL DEFAULT false;

-- The gauges' one look: an index-only scan over the open targets, with the start of each for the longest.
CREATE INDEX target_gauge ON target (queue, kind, status, is_warned, started_at)
    WHERE status IN ('running', 'paused', 'breached');
DROP INDEX target_open;  -- The one above answers what this one did.
-- Reports ask for what ended, and for what broke, in a stretch of time.
CREATE INDEX target_settled_at ON target (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX target_breached_at ON target (breached_at) WHERE breached_at IS NOT NULL;
