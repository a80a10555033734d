-- What promises to customers are made from, and how they went: a row for each first answer that is owed, after an opening
-- or a reopening. Rows are written in the transaction of the decision, and deleted in small slices once they are older than
-- the window of `promises` in sla.yaml.

CREATE TABLE wait (
    target_id         text        PRIMARY KEY,
    ticket_id         text        NOT NULL,
    opened_queue      text        NOT NULL,
    queue             text        NOT NULL,
    channel           text        NOT NULL,
    priority          smallint    NOT NULL CHECK (priority BETWEEN 1 AND 4),
    calendar          text        NOT NULL,
    hour_of_week      smallint    NOT NULL CHECK (hour_of_week BETWEEN 0 AND 167),
    is_after_hours    boolean     NOT NULL,
    ahead             integer     NOT NULL CHECK (ahead >= 0),
    opened_at         timestamptz NOT NULL,
    promised_by       timestamptz CHECK (promised_by >= opened_at),
    promised_seconds  double precision CHECK (promised_seconds >= 0),
    is_told           boolean     NOT NULL,
    estimates_version text        NOT NULL,
    answered_at       timestamptz,
    waited_us         bigint      CHECK (waited_us >= 0),
    ended_at          timestamptz,
    kept              boolean,
    settled_at        timestamptz,
    CONSTRAINT wait_promise_is_whole CHECK ((promised_by IS NULL) = (promised_seconds IS NULL)),
    CONSTRAINT wait_answer_is_whole CHECK ((answered_at IS NULL) = (waited_us IS NULL)),
    CONSTRAINT wait_ends_once CHECK (answered_at IS NULL OR ended_at IS NULL),
    CONSTRAINT wait_verdict_is_whole CHECK ((kept IS NULL) = (settled_at IS NULL)),
    CONSTRAINT wait_verdict_of_a_promise CHECK (kept IS NULL OR promised_by IS NOT NULL),
    CONSTRAINT wait_kept_in_time CHECK (NOT kept OR answered_at <= promised_by)
) WITH (fillfactor = 80);
COMMENT ON COLUMN wait.opened_queue IS 'where it was opened: its wait, and what was promised, are compared there';
COMMENT ON COLUMN wait.queue IS 'where it waits now, or was answered: it is ahead of others there';
COMMENT ON COLUMN wait.is_told IS 'whether the promise was published; false where sla.yaml keeps a queue quiet';
COMMENT ON COLUMN wait.hour_of_week IS 'local to the calendar; 0 is the first hour of Monday';
COMMENT ON COLUMN wait.ahead IS 'tickets that the queue would have served before it when it was opened';
COMMENT ON COLUMN wait.waited_us IS 'open, unpaused time until the first answer, in microseconds';
COMMENT ON COLUMN wait.ended_at IS 'when nothing was owed any more, without an answer';
COMMENT ON COLUMN wait.kept IS 'whether the promise was kept; false also while promised_by has passed unanswered';
COMMENT ON COLUMN wait.settled_at IS 'when that was clear: at the answer, or at promised_by if there was none by then';
CREATE INDEX wait_time ON wait (opened_at);
CREATE INDEX wait_queue ON wait (opened_queue, opened_at DESC, target_id DESC);
CREATE INDEX wait_open ON wait (queue, priority, opened_at) WHERE answered_at IS NULL AND ended_at IS NULL;
CREATE INDEX wait_answers ON wait (answered_at) WHERE answered_at IS NOT NULL;
CREATE INDEX wait_verdicts ON wait (opened_queue, settled_at, target_id) WHERE kept IS NOT NULL;
CREATE INDEX wait_promises ON wait (promised_by)
    WHERE kept IS NULL AND answered_at IS NULL AND ended_at IS NULL AND promised_by IS NOT NULL;
