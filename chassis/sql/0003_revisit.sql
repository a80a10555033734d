-- How far a task has come in deciding again what was decided under another revision of the stage (of its policy, say).
-- The cursor moves in the transaction of the slice that it stands behind, so a walk goes on where its last commit ended.

CREATE TABLE revisit (
    stage     text        NOT NULL,
    task      integer     NOT NULL CHECK (task >= 0),
    revision  text        NOT NULL,
    walk      bigint      NOT NULL CHECK (walk >= 0),
    after_key text        NOT NULL DEFAULT '',
    began_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at   timestamptz,
    PRIMARY KEY (stage, task)
) WITH (fillfactor = 50);
COMMENT ON COLUMN revisit.revision IS 'what all keys up to after_key, and all of them once done_at is set, were decided under';
COMMENT ON COLUMN revisit.walk IS 'counts the walks of the task, so that what two of them tell never has one name';

-- After an outage any number of timers may be due at one instant: a page of them ends, and the next begins, between two of those.
DROP INDEX timer_due;
CREATE INDEX timer_due ON timer (stage, task, due_at, key, name);

-- A million timers are moved, fired and set all day: a fifth of them dead, which is the default, is too much to wait for.
ALTER TABLE timer SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
