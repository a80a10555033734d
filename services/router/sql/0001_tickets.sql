-- Tickets as rows, for `signalbox ticket show`, boards and reports. The truth that decisions are made from is the ledger's
-- state; these rows are written in the same transaction.

CREATE TABLE ticket (
    ticket_id       text        PRIMARY KEY,
    conversation_id text        NOT NULL,
    number          integer     NOT NULL CHECK (number > 0),
    reference       text        NOT NULL,
    status          text        NOT NULL
        CHECK (status IN ('queued', 'offered', 'assigned', 'pending', 'solved', 'closed')),
    queue           text        NOT NULL,
    desk            text        NOT NULL CHECK (desk IN ('service', 'technical')),
    priority        smallint    NOT NULL CHECK (priority BETWEEN 1 AND 4),
    agent_id        text,
    subject         text        NOT NULL,
    customer_id     text        NOT NULL,
    language        text,
    tags            text[]      NOT NULL DEFAULT '{}',
    opened_at       timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    version         bigint      NOT NULL CHECK (version > 0),
    UNIQUE (conversation_id, number),
    CONSTRAINT ticket_has_its_agent CHECK (status NOT IN ('offered', 'assigned', 'pending') OR agent_id IS NOT NULL)
) WITH (fillfactor = 70);
COMMENT ON COLUMN ticket.agent_id IS 'who is offered it, holds it, or had it last';
CREATE UNIQUE INDEX ticket_one_open ON ticket (conversation_id) WHERE status <> 'closed';
CREATE INDEX ticket_open ON ticket (queue, status) WHERE status NOT IN ('solved', 'closed');
CREATE INDEX ticket_reference ON ticket (reference);

CREATE TABLE ticket_event (
    ticket_id       text        NOT NULL,
    version         bigint      NOT NULL CHECK (version > 0),
    conversation_id text        NOT NULL,
    type            text        NOT NULL,
    at              timestamptz NOT NULL,
    data            jsonb       NOT NULL,
    PRIMARY KEY (ticket_id, version)
);

CREATE TABLE ticket_message (
    message_id      text        PRIMARY KEY,
    input_id        text        NOT NULL,
    ticket_id       text,
    conversation_id text        NOT NULL,
    kind            text        NOT NULL,
    outcome         text        NOT NULL,
    at              timestamptz NOT NULL,
    text            text        NOT NULL,
    CONSTRAINT ticket_message_has_its_ticket
        CHECK ((ticket_id IS NOT NULL) = (outcome IN ('opened', 'followed_up', 'added', 'reopened')))
);
COMMENT ON COLUMN ticket_message.outcome IS 'what became of it; without a ticket: why not';
CREATE INDEX ticket_message_ticket ON ticket_message (ticket_id, at);
CREATE INDEX ticket_message_input ON ticket_message (input_id);
