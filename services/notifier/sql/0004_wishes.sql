-- What people said of notices, and which addresses are dead. Recipients stand here by a hash, never by their address: that
-- somebody wants nothing more from us outlives the erasure of what we knew of them.

CREATE TABLE opt_out (
    recipient_hash text        NOT NULL,
    category       text        NOT NULL CHECK (category IN ('service', 'outage', 'follow_up')),
    is_out         boolean     NOT NULL DEFAULT true,
    at             timestamptz NOT NULL,
    source         text        NOT NULL CHECK (source IN ('link', 'word', 'agent', 'vendor')),
    PRIMARY KEY (recipient_hash, category)
);
COMMENT ON COLUMN opt_out.is_out IS 'false: they asked for it, which is consent where the policy needs one';
COMMENT ON COLUMN opt_out.source IS 'a link in a notice, a word such as STOP, somebody of ours, or the vendor''s own list';

CREATE TABLE undeliverable (
    recipient_hash text        PRIMARY KEY,
    reason         text        NOT NULL,
    at             timestamptz NOT NULL,
    until          timestamptz,
    CHECK (until > at)
);
COMMENT ON COLUMN undeliverable.until IS 'null: for good';

CREATE INDEX notice_automatic ON notice (requested_at DESC)
    WHERE occasion <> 'answered' AND requested_at IS NOT NULL;
