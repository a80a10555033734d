-- Users and groups as identity providers provision them (SCIM 2.0). What the roster is told of them goes to the spool in
-- the transaction that changes these rows, so the two cannot part; where too many change at once, that transaction notes
-- who is still to be told of.

CREATE TABLE scim_user (
    scim_id     text        PRIMARY KEY,
    workspace   text        NOT NULL,
    domain      text        NOT NULL,
    agent_id    text        NOT NULL,
    user_name   text        NOT NULL,
    external_id text,
    emails      text[]      NOT NULL,
    is_active   boolean     NOT NULL,
    document    jsonb       NOT NULL,
    told        jsonb,
    is_due      boolean     NOT NULL DEFAULT false,
    version     bigint      NOT NULL CHECK (version > 0),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    UNIQUE (user_name, domain, workspace),
    UNIQUE (agent_id, domain, workspace)
);
CREATE INDEX scim_user_due ON scim_user (scim_id) WHERE is_due;
CREATE INDEX scim_user_external ON scim_user (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX scim_user_email ON scim_user USING gin (emails) WITH (fastupdate = off);
CREATE INDEX scim_user_display ON scim_user USING hash (lower(document ->> 'displayName'));
CREATE INDEX scim_user_page ON scim_user (created_at, scim_id, domain, workspace);
-- What tells rows apart stands first, and no index begins with workspace and domain: while there are no statistics yet,
-- in the first hour of a large import, PostgreSQL would take such an index for one that finds a single row.
COMMENT ON COLUMN scim_user.user_name IS 'folded: SCIM compares it without case';
COMMENT ON COLUMN scim_user.emails IS 'folded like user_name; what the document says in its own spelling';
COMMENT ON COLUMN scim_user.told IS 'the agent as the roster was told last; null while they are not in it';
COMMENT ON COLUMN scim_user.is_due IS 'changed together with many others, and the roster is still to be told';

CREATE TABLE scim_group (
    scim_id      text        PRIMARY KEY,
    workspace    text        NOT NULL,
    domain       text        NOT NULL,
    display_name text        NOT NULL,
    name_key     text        NOT NULL,
    external_id  text,
    version      bigint      NOT NULL CHECK (version > 0),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    UNIQUE (name_key, domain, workspace)
);
COMMENT ON COLUMN scim_group.display_name IS 'says which queue, skill or language it is, itself or by channels.yaml';

CREATE TABLE scim_member (
    group_id text NOT NULL REFERENCES scim_group ON DELETE CASCADE,
    user_id  text NOT NULL REFERENCES scim_user ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX scim_member_of ON scim_member (user_id);
