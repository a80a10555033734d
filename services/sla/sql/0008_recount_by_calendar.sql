-- When a calendar changes, the conversations that have an open clock by it are visited, and no others: found by this index, in the
-- order of a walk.
CREATE INDEX target_calendar ON target (calendar, conversation_id) WHERE status IN ('running', 'paused', 'breached');
