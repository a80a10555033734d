-- Web chats as their visitors see them. What is said travels by the topics; these rows are what a widget is shown.

CREATE TABLE webchat_session (
    session_id text        PRIMARY KEY,
    workspace  text        NOT NULL,
    account    text        NOT NULL,
    last_n     bigint      NOT NULL DEFAULT 0 CHECK (last_n >= 0),
    created_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    typing_at  timestamptz
);
CREATE INDEX webchat_session_age ON webchat_session (seen_at);
COMMENT ON TABLE webchat_session IS 'visitors who have said something; seen_at: when their widget last asked';

CREATE TABLE webchat_message (
    session_id text        NOT NULL REFERENCES webchat_session ON DELETE CASCADE,
    n          bigint      NOT NULL CHECK (n > 0),
    direction  text        NOT NULL CHECK (direction IN ('in', 'out')),
    name       text        NOT NULL,
    author     text        NOT NULL DEFAULT '',
    text       text        NOT NULL,
    at         timestamptz NOT NULL,
    read_at    timestamptz,
    PRIMARY KEY (session_id, n),
    UNIQUE (session_id, direction, name)
);
COMMENT ON COLUMN webchat_message.n IS 'counts a session''s messages upwards in the order they were committed; numbers may be missing';
COMMENT ON COLUMN webchat_message.name IS 'in: the widget''s id of the message; out: the id of the agent''s command';
COMMENT ON COLUMN webchat_message.read_at IS 'in: an agent had it before them; out: the visitor had it before them';

CREATE TABLE webchat_conversation (
    conversation_id text        PRIMARY KEY,
    session_id      text        NOT NULL REFERENCES webchat_session ON DELETE CASCADE,
    at              timestamptz NOT NULL
);
CREATE INDEX webchat_conversation_of ON webchat_conversation (session_id);
COMMENT ON TABLE webchat_conversation IS 'which session an agent who has a conversation is typing to';
