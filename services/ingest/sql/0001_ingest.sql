-- What ingest knows beyond the ledger. Rows of these tables are shared by all tasks: their keys decide races.

CREATE TABLE seen (
    workspace  text        NOT NULL,
    channel    text        NOT NULL,
    account    text        NOT NULL,
    name       text        NOT NULL,
    message_id text        NOT NULL,
    input_id   text        NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (workspace, channel, account, name)
);
CREATE INDEX seen_age ON seen (at);
COMMENT ON TABLE seen IS 'names of messages taken in, so that a repeat is known; kept for SIGNALBOX_SEEN_DAYS';

CREATE TABLE thread_ref (
    workspace       text        NOT NULL,
    reference       text        NOT NULL,
    conversation_id text        NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (workspace, reference)
);
CREATE INDEX thread_ref_age ON thread_ref (at);
COMMENT ON TABLE thread_ref IS 'a Message-ID or a vendor''s id leads to its conversation; the first use wins';

CREATE TABLE customer (
    workspace   text        NOT NULL,
    customer_id text        NOT NULL,
    name        text        NOT NULL DEFAULT '',
    at          timestamptz NOT NULL,
    PRIMARY KEY (workspace, customer_id)
);

CREATE TABLE customer_address (
    workspace   text        NOT NULL,
    kind        text        NOT NULL,
    address     text        NOT NULL,
    customer_id text        NOT NULL,
    is_verified boolean     NOT NULL DEFAULT false,
    at          timestamptz NOT NULL,
    PRIMARY KEY (workspace, kind, address),
    FOREIGN KEY (workspace, customer_id) REFERENCES customer
);
CREATE INDEX customer_address_of ON customer_address (workspace, customer_id);
COMMENT ON TABLE customer_address IS 'an address belongs to one customer';

CREATE TABLE participant (
    workspace       text        NOT NULL,
    conversation_id text        NOT NULL,
    kind            text        NOT NULL,
    address         text        NOT NULL,
    customer_id     text        NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (workspace, conversation_id, kind, address)
);

CREATE TABLE outcome (
    input_id        text        PRIMARY KEY,
    outcome         text        NOT NULL CHECK (outcome IN ('message', 'duplicate', 'ignored')),
    reason          text,
    message_id      text,
    conversation_id text,
    is_automatic    boolean     NOT NULL DEFAULT false,
    at              timestamptz NOT NULL,
    CHECK ((outcome = 'ignored') = (reason IS NOT NULL)),
    CHECK ((outcome = 'ignored') = (message_id IS NULL))
);
CREATE INDEX outcome_automatic ON outcome (conversation_id, at) WHERE is_automatic;
COMMENT ON TABLE outcome IS 'what became of each accepted input; those parked are in the ledger''s parked table';

CREATE TABLE mailbox_cursor (
    account     text        NOT NULL,
    folder      text        NOT NULL,
    uidvalidity bigint      NOT NULL,
    last_uid    bigint      NOT NULL,
    owner       text        NOT NULL DEFAULT '',
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, folder)
);
COMMENT ON TABLE mailbox_cursor IS 'how far a mailbox has been read, and which process reads it';
