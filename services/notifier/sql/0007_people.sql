-- What people decide about notices that did not arrive or may not have, and notices that were only rehearsed.

ALTER TABLE notice DROP CONSTRAINT notice_status_check;
ALTER TABLE notice ADD CONSTRAINT notice_status_check
    CHECK (status IN ('deferred', 'requested', 'sent', 'failed', 'unknown', 'suppressed', 'dry_run'));

CREATE TABLE notice_resend (
    command_id      text        PRIMARY KEY,
    notice_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    agent_id        text        NOT NULL,
    at              timestamptz NOT NULL,
    outcome         text        NOT NULL CHECK (outcome IN ('resent', 'refused')),
    reason          text        NOT NULL DEFAULT '',
    CHECK (outcome = 'resent' OR reason <> '')
);
COMMENT ON TABLE notice_resend IS 'who asked for a notice to be sent again, and what came of asking';

CREATE INDEX notice_resend_of_notice ON notice_resend (notice_id);
CREATE INDEX notice_to_be_looked_at ON notice (settled_at) WHERE status IN ('failed', 'unknown');
CREATE INDEX notice_deferred ON notice (deferred_until) WHERE deferred_until IS NOT NULL;
