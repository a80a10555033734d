-- All automatic notices to addresses that nobody has proved are counted together, for the cap of the workspace.

ALTER TABLE notice ADD COLUMN to_unverified boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN notice.to_unverified IS 'whether the recipient''s address was unproved when the intent was recorded';

CREATE INDEX notice_to_unverified ON notice (requested_at DESC)
    WHERE to_unverified AND occasion <> 'answered' AND requested_at IS NOT NULL;
