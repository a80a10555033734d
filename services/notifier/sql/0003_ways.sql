-- Every occasion, the way that a notice went, notices that were put off, and what was reported of them.

ALTER TABLE notice DROP CONSTRAINT notice_occasion_check;
ALTER TABLE notice ADD CONSTRAINT notice_occasion_check CHECK (occasion IN (
    'received', 'after_hours', 'voicemail', 'escalated', 'need_info', 'still_on_it', 'delayed', 'answered', 'solved',
    'reopened', 'outage_known', 'outage_over', 'callback_booked', 'callback_missed', 'security', 'next_issue', 'recovery',
    'check_in', 'survey', 'digest'));

ALTER TABLE notice
    ADD COLUMN provider       text NOT NULL DEFAULT '',
    ADD COLUMN account        text NOT NULL DEFAULT '',
    ADD COLUMN category       text NOT NULL DEFAULT 'service'
               CHECK (category IN ('service', 'outage', 'follow_up', 'security')),
    ADD COLUMN deferred_until timestamptz,
    ADD COLUMN message_id     text,
    ADD COLUMN delivery       text CHECK (delivery IN ('delivered', 'read', 'bounced'));
COMMENT ON COLUMN notice.provider IS 'the way it went last; empty where it came to none';
COMMENT ON COLUMN notice.deferred_until IS 'when it is asked for again; null once it is over';
COMMENT ON COLUMN notice.message_id IS 'what reports about it call it: our Message-ID, or the vendor''s id';
COMMENT ON COLUMN notice.delivery IS 'what was heard last of its way; null: nothing';

UPDATE notice SET provider = 'smtp' WHERE requested_at IS NOT NULL;

-- A notice that is put off before its words are made has a row, and no recipient yet. A second intent for one cause becomes
-- `twice`, which no row may be.
ALTER TABLE notice DROP CONSTRAINT notice_status_check;
ALTER TABLE notice ADD CONSTRAINT notice_status_check
    CHECK (status IN ('deferred', 'requested', 'sent', 'failed', 'unknown', 'suppressed'));
ALTER TABLE notice DROP CONSTRAINT notice_check;
ALTER TABLE notice ADD CONSTRAINT notice_is_over
    CHECK ((status IN ('deferred', 'requested')) = (settled_at IS NULL));
ALTER TABLE notice DROP CONSTRAINT notice_check1;
ALTER TABLE notice ADD CONSTRAINT notice_was_asked_for
    CHECK (requested_at IS NOT NULL OR status IN ('deferred', 'failed', 'suppressed'));

CREATE INDEX notice_by_message_id ON notice (message_id) WHERE message_id IS NOT NULL;

-- What waited for another attempt had its mail under a name of its own.
UPDATE state
   SET value = jsonb_set(value::jsonb, '{notices}', (
       SELECT jsonb_object_agg(n.key, CASE
              WHEN n.one ? 'mail' THEN (n.one - 'mail')
                   || jsonb_build_object('message', (n.one -> 'mail') || '{"type": "Mail"}')
              ELSE n.one END)
         FROM jsonb_each(value::jsonb -> 'notices') AS n(key, one)))::json
 WHERE stage = 'notifier' AND value::text LIKE '%"mail":{%';
