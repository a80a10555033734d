-- The gateway's front door: what was accepted and is not yet numbered. A row here is as good as an event.

CREATE TABLE spool (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text        NOT NULL,
    part       integer     NOT NULL,
    key        bytea       NOT NULL,
    envelope   jsonb       NOT NULL,
    value      bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX spool_part ON spool (part, id);

-- The answer given for a sender's name of a request, so that a repeat gets the same one.
CREATE TABLE idempotency (
    key        text        PRIMARY KEY,
    digest     text        NOT NULL,
    answer     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idempotency_age ON idempotency (created_at);

-- Bodies too large to travel in an event, by their SHA-256.
CREATE TABLE blob (
    ref        text        PRIMARY KEY,
    value      bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE blob ALTER COLUMN value SET STORAGE EXTERNAL;
