-- Where tickets stand, as the topics told it: enough to tell an agent that a ticket moved on. The router stays the judge.

CREATE TABLE ticket_view (
    ticket_id       text        PRIMARY KEY,
    conversation_id text        NOT NULL,
    status          text        NOT NULL,
    version         bigint      NOT NULL CHECK (version > 0),
    assignee_id     text,
    queue           text,
    priority        smallint,
    since           timestamptz NOT NULL,
    changed_at      timestamptz NOT NULL,
    into_conversation_id text,
    into_ticket_id  text,
    delegated_by    text
);
CREATE INDEX ticket_view_ended ON ticket_view (changed_at) WHERE status IN ('closed', 'merged');
COMMENT ON TABLE ticket_view IS 'one row a ticket; version is that of its latest event read here';
COMMENT ON COLUMN ticket_view.delegated_by IS 'who delegated it last; whether it still is, is not known here';
COMMENT ON COLUMN ticket_view.since IS 'when it came to stand where it stands, with whom it stands there';

CREATE TABLE ticket_offer (
    reservation_id text        NOT NULL,
    agent_id       text        NOT NULL,
    ticket_id      text        NOT NULL,
    work_id        text        NOT NULL,
    offered_at     timestamptz NOT NULL,
    expires_at     timestamptz,
    taken_at       timestamptz,
    ended_at       timestamptz,
    end_reason     text,
    PRIMARY KEY (reservation_id, agent_id),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX ticket_offer_taken ON ticket_offer (work_id, taken_at) WHERE taken_at IS NOT NULL;
CREATE INDEX ticket_offer_age ON ticket_offer (offered_at);
CREATE INDEX ticket_offer_ticket ON ticket_offer (ticket_id);
COMMENT ON TABLE ticket_offer IS 'offers to agents and how they ended; an offer that has ended never begins again';

CREATE TABLE ticket_request (
    request_id     text        PRIMARY KEY,
    name           text        UNIQUE,
    digest         text        NOT NULL,
    ticket_id      text        NOT NULL,
    agent_id       text        NOT NULL,
    action         text        NOT NULL,
    reservation_id text,
    asked_at       timestamptz NOT NULL,
    is_awaited     boolean     NOT NULL,
    outcome        text        CHECK (outcome IN ('done', 'refused')),
    is_refused_here boolean    NOT NULL DEFAULT false,
    reason         text,
    state          text,
    settled_at     timestamptz,
    winner_id      text,
    winner_at      timestamptz,
    CHECK ((outcome IS NULL) = (settled_at IS NULL)),
    CHECK ((outcome = 'refused') = (reason IS NOT NULL) OR outcome IS NULL)
);
CREATE INDEX ticket_request_open ON ticket_request (ticket_id, asked_at) WHERE outcome IS NULL;
CREATE INDEX ticket_request_awaited ON ticket_request (ticket_id) WHERE is_awaited;
CREATE INDEX ticket_request_age ON ticket_request (asked_at);
COMMENT ON TABLE ticket_request IS 'commands and answers to offers that came by HTTP, and what became of them; written before the request is stored';
COMMENT ON COLUMN ticket_request.name IS 'the sender''s idempotency key, under its route and key; null where there was none';
COMMENT ON COLUMN ticket_request.reservation_id IS 'the offer that is answered; null where it is a command';
COMMENT ON COLUMN ticket_request.asked_at IS 'when it was asked last, by the database''s clock: before it was stored, if it was';
COMMENT ON COLUMN ticket_request.is_refused_here IS 'the gateway said 409 and stored nothing; the same key is judged anew, and passes where that does not hold any more';

CREATE TABLE ticket_view_task (
    task       integer     PRIMARY KEY,
    current_at timestamptz NOT NULL
);
COMMENT ON TABLE ticket_view_task IS 'the view holds all that was published in this partition of both topics up to then; older than some seconds, it judges nothing';
