-- Channels that are looked into or asked back, and what shops tell of their customers' orders.

CREATE TABLE channel_cursor (
    channel     text        NOT NULL,
    account     text        NOT NULL,
    cursor      text,
    owner       text        NOT NULL DEFAULT '',
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    looked_at   timestamptz,
    due_at      timestamptz NOT NULL DEFAULT '-infinity',
    failures    int         NOT NULL DEFAULT 0,
    problem     text,
    PRIMARY KEY (channel, account)
);
COMMENT ON TABLE channel_cursor IS 'how far a channel that is looked into has been read, and which process looks';

CREATE TABLE read_back (
    input_id   text        PRIMARY KEY,
    channel    text        NOT NULL,
    account    text        NOT NULL,
    delivery   jsonb       NOT NULL,
    attempts   int         NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT '-infinity',
    problem    text,
    created_at timestamptz NOT NULL
);
CREATE INDEX read_back_due ON read_back (due_at);
COMMENT ON TABLE read_back IS 'deliveries whose content is still to be read through the vendor''s API';

CREATE TABLE customer_order (
    workspace  text        NOT NULL,
    channel    text        NOT NULL,
    account    text        NOT NULL,
    order_id   text        NOT NULL,
    number     text        NOT NULL,
    status     text        NOT NULL,
    total      text        NOT NULL DEFAULT '',
    currency   text        NOT NULL DEFAULT '',
    addresses  text[]      NOT NULL DEFAULT '{}',
    placed_at  timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, channel, account, order_id)
);
CREATE INDEX customer_order_of ON customer_order USING gin (addresses);
COMMENT ON TABLE customer_order IS 'orders as shops tell of them; addresses are kind:address of who ordered';
