-- What helpdesks, chat tools and boards are to show of tickets, and what they show: one row a thing of ours in a place.
-- The documents of the stage `router.elsewhere` decide; this is for people and for counting, written with them.

CREATE TABLE elsewhere_item (
    item_id         text        PRIMARY KEY,
    conversation_id text        NOT NULL,
    ticket_id       text        NOT NULL,
    place           text        NOT NULL,
    vendor          text        NOT NULL,
    slot            text        NOT NULL,
    says            text        NOT NULL CHECK (says IN ('offered', 'assigned', 'waiting', 'escalated', 'solved')),
    agent_id        text,
    status          text        NOT NULL CHECK (status IN ('calling', 'retrying', 'shown', 'failed', 'idle')),
    reason          text,
    attempt         integer     NOT NULL CHECK (attempt >= 0),
    retry_at        timestamptz,
    handle          text,
    changed_at      timestamptz NOT NULL,
    closed_at       timestamptz,
    CONSTRAINT elsewhere_item_is_the_only_one UNIQUE (ticket_id, place, slot),
    CONSTRAINT elsewhere_item_says_why CHECK ((status IN ('retrying', 'failed')) = (reason IS NOT NULL)),
    CONSTRAINT elsewhere_item_says_when CHECK ((status = 'retrying') = (retry_at IS NOT NULL))
);
COMMENT ON COLUMN elsewhere_item.slot IS 'the reservation that a message is about; empty where a place has one thing a ticket';
COMMENT ON COLUMN elsewhere_item.says IS 'what the place is to show; with status shown, what it shows';
COMMENT ON COLUMN elsewhere_item.status IS 'idle: the place shows nothing of that kind any more';
COMMENT ON COLUMN elsewhere_item.handle IS 'the vendor''s name for what we made there; null where we made nothing';
COMMENT ON COLUMN elsewhere_item.closed_at IS 'when its ticket was closed and nothing was under way any more; the row goes some days later';
CREATE INDEX elsewhere_item_closed ON elsewhere_item (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX elsewhere_item_open ON elsewhere_item (place, changed_at) WHERE status IN ('calling', 'retrying', 'failed');
