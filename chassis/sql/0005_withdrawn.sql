-- An effect that is no longer wanted and has not been begun. It is never done, by whichever process has the task then; that it
-- was not comes back as its result, in its turn.
ALTER TABLE effect ADD COLUMN withdrawn_at timestamptz;
ALTER TABLE effect ADD CONSTRAINT effect_is_withdrawn_or_begun CHECK (withdrawn_at IS NULL OR started_at IS NULL);
COMMENT ON COLUMN effect.withdrawn_at IS 'when it was withdrawn; null: it is still wanted, or was begun before';
