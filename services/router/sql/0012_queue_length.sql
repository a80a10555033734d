-- How many tickets wait in the queues whose length a rule of the policy asks for. Assignment keeps it, a row a queue and
-- only for those; the stage of tickets reads it, since its tasks know nothing of the domains.

CREATE TABLE queue_length (
    domain  text        NOT NULL,
    queue   text        NOT NULL,
    waiting integer     NOT NULL CHECK (waiting >= 0),
    at      timestamptz NOT NULL,
    PRIMARY KEY (domain, queue)
) WITH (fillfactor = 50);
COMMENT ON COLUMN queue_length.at IS 'when the number changed last, by the clock of the database';
