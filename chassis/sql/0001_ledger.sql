-- The ledger of one service: who may write, how far it has read, what it knows, what it owes.
-- Every table is keyed by (stage, task); one row of `lease` fences all others.

CREATE TABLE lease (
    stage        text        NOT NULL,
    task         integer     NOT NULL CHECK (task >= 0),
    epoch        bigint      NOT NULL CHECK (epoch > 0),
    owner        text        NOT NULL,
    incarnation  bigint      NOT NULL DEFAULT 1 CHECK (incarnation > 0),
    continues    jsonb       NOT NULL DEFAULT '{}',
    topology     integer     NOT NULL DEFAULT 1,
    offsets      jsonb       NOT NULL DEFAULT '{}',
    emitted      jsonb       NOT NULL DEFAULT '{}',
    applied      jsonb       NOT NULL DEFAULT '{}',
    next_oid     bigint      NOT NULL DEFAULT 1,
    next_timer   bigint      NOT NULL DEFAULT 1,
    n_applied    bigint      NOT NULL DEFAULT 0,
    n_duplicate  bigint      NOT NULL DEFAULT 0,
    n_ignored    bigint      NOT NULL DEFAULT 0,
    n_parked     bigint      NOT NULL DEFAULT 0,
    halted       jsonb,
    renewed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stage, task)
) WITH (fillfactor = 50);
COMMENT ON COLUMN lease.offsets IS 'topic -> offset of the next record to read';
COMMENT ON COLUMN lease.emitted IS '"topic/partition" -> last sequence given out';
COMMENT ON COLUMN lease.applied IS '"source topic" -> last sequence applied';
COMMENT ON COLUMN lease.continues IS '"topic/partition" -> "incarnation:sequence" of the last event before a restore';
COMMENT ON COLUMN lease.halted IS 'where a gap was met: {topic, source, last, got, offset}; null while all is well';

CREATE TABLE state (
    stage text    NOT NULL,
    task  integer NOT NULL,
    key   text    NOT NULL,
    value jsonb   NOT NULL,
    PRIMARY KEY (stage, task, key)
) WITH (fillfactor = 70);

CREATE TABLE timer (
    stage  text        NOT NULL,
    task   integer     NOT NULL,
    key    text        NOT NULL,
    name   text        NOT NULL,
    id     bigint      NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (stage, task, key, name)
) WITH (fillfactor = 70);
CREATE INDEX timer_due ON timer (stage, task, due_at);

CREATE TABLE outbox (
    stage      text        NOT NULL,
    task       integer     NOT NULL,
    oid        bigint      NOT NULL,
    topic      text        NOT NULL,
    part       integer     NOT NULL,
    seq        bigint      NOT NULL,
    key        bytea       NOT NULL,
    headers    bytea       NOT NULL,
    value      bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stage, task, oid)
);

CREATE TABLE effect (
    stage      text        NOT NULL,
    task       integer     NOT NULL,
    id         text        NOT NULL,
    key        text        NOT NULL,
    attempt    integer     NOT NULL,
    payload    jsonb       NOT NULL,
    ordinal    bigint      NOT NULL,
    started_at timestamptz,
    PRIMARY KEY (stage, task, id)
);

CREATE TABLE parked (
    id          text        PRIMARY KEY,
    stage       text        NOT NULL,
    task        integer     NOT NULL,
    topic       text        NOT NULL,
    part        integer     NOT NULL,
    log_offset  bigint      NOT NULL,
    key         bytea,
    headers     bytea       NOT NULL,
    value       bytea,
    is_cut      boolean     NOT NULL DEFAULT false,
    reason      text        NOT NULL,
    error       text        NOT NULL,
    state_key   text,
    attempts    integer     NOT NULL DEFAULT 1,
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    replay_requested_at timestamptz,
    resolved_at timestamptz,
    resolution  text
);
CREATE INDEX parked_open ON parked (stage, task) WHERE resolved_at IS NULL;

-- Ids of events that a source told and then lost with its database; told again in its new incarnation, they are dropped.
CREATE TABLE superseded (
    stage      text        NOT NULL,
    task       integer     NOT NULL,
    id         text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stage, task, id)
);
