-- API keys as digests: whoever reads this table, or a copy of it, cannot use a key of it.

CREATE TABLE api_key (
    key_id       text        PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{12}$'),
    workspace    text        NOT NULL,
    name         text        NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,63}$'),
    digest       bytea       NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    scopes       text[]      NOT NULL CHECK (cardinality(scopes) BETWEEN 1 AND 20),
    domains      text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(domains) <= 100),
    agent_id     text        CHECK (length(agent_id) BETWEEN 1 AND 200),
    created_at   timestamptz NOT NULL,
    created_by   text        NOT NULL CHECK (length(created_by) BETWEEN 1 AND 200),
    expires_at   timestamptz CHECK (expires_at > created_at),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    revoked_by   text        CHECK (length(revoked_by) BETWEEN 1 AND 200),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
COMMENT ON TABLE api_key IS 'keys of the gateway; rows stay, so that the audit can be read later';
COMMENT ON COLUMN api_key.digest IS 'SHA-256 of the secret part, 256 random bits';
COMMENT ON COLUMN api_key.name IS 'whose it is; two keys of a name may be in force while one takes the place of the other';
COMMENT ON COLUMN api_key.domains IS 'routing domains that it may provision by SCIM; none: all';
COMMENT ON COLUMN api_key.agent_id IS 'the one agent that it may speak as; none: any';
COMMENT ON COLUMN api_key.last_used_at IS 'to the minute';

CREATE INDEX api_key_in_force ON api_key (workspace) WHERE revoked_at IS NULL;
