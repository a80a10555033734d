-- Who is to be called. The stage writes changes of alerts in its batch's transaction, as new rows only, so that no two tasks ever
-- wait for each other; one sender among all processes (an advisory lock) folds them into the alerts and tells the receivers.

CREATE TABLE page_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_key text   NOT NULL,
    change    jsonb  NOT NULL
);
CREATE INDEX page_change_alert ON page_change (alert_key);
COMMENT ON TABLE page_change IS 'alerts that fired or ended and are not folded yet; deleted as they are';

-- One row an alert: a clock's, or a ticket's. It stays for a week after its end.
CREATE TABLE page_alert (
    alert_key text        PRIMARY KEY,
    event     text        NOT NULL,
    severity  text        NOT NULL CHECK (severity IN ('info', 'warning', 'error', 'critical')),
    group_key text        NOT NULL,
    receivers text[]      NOT NULL,
    since     timestamptz NOT NULL,
    alert     jsonb       NOT NULL,
    fired_at  timestamptz NOT NULL,
    fired_seq bigint      NOT NULL,
    seq       bigint      NOT NULL CHECK (seq >= fired_seq),
    ended_at  timestamptz CHECK (ended_at >= fired_at),
    note      text        NOT NULL DEFAULT '',
    left_group     text,
    left_receivers text[],
    left_seq       bigint,
    CONSTRAINT page_alert_left CHECK (num_nulls(left_group, left_receivers, left_seq) IN (0, 3))
) WITH (fillfactor = 80);
COMMENT ON COLUMN page_alert.since IS 'of a breach: the deadline; else when it was told';
COMMENT ON COLUMN page_alert.seq IS 'numbers its last change among all, fired_seq its last rise: what a receiver has not heard is above its told_seq';
COMMENT ON COLUMN page_alert.left_group IS 'where it was told before its last rise (to left_receivers, with the rise left_seq), if that took it from a group or a receiver';
CREATE INDEX page_alert_firing ON page_alert (group_key, since, alert_key) WHERE ended_at IS NULL;
CREATE INDEX page_alert_ended ON page_alert (group_key, seq) WHERE ended_at IS NOT NULL;
CREATE INDEX page_alert_moved ON page_alert (left_group, fired_seq) WHERE left_group IS NOT NULL;
CREATE INDEX page_alert_old ON page_alert (ended_at) WHERE ended_at IS NOT NULL;
CREATE SEQUENCE page_seq;

-- What each receiver was told of each group, and when to look at it again. Only the sender writes it.
CREATE TABLE page (
    group_key  text        NOT NULL,
    receiver   text        NOT NULL,
    family     text        NOT NULL,
    labels     jsonb       NOT NULL,
    route      text        NOT NULL,
    episode    integer     NOT NULL,
    number     integer     NOT NULL,
    is_told    boolean     NOT NULL,
    is_begun   boolean     NOT NULL,
    changed_at timestamptz,
    news_at    timestamptz,
    sent_at    timestamptz,
    told_seq   bigint      NOT NULL,
    told_firing integer    NOT NULL,
    severity   text,
    content    text        NOT NULL,
    ref        text        NOT NULL,
    attempts   integer     NOT NULL,
    refused_at timestamptz,
    problem    text        NOT NULL,
    due_at     timestamptz,
    PRIMARY KEY (group_key, receiver)
) WITH (fillfactor = 80);
COMMENT ON COLUMN page.is_begun IS 'a message may have gone out that nobody confirmed';
COMMENT ON COLUMN page.changed_at IS 'the first change that the receiver was not told';
COMMENT ON COLUMN page.news_at IS 'the first change since the attempt under way began';
COMMENT ON COLUMN page.problem IS 'why the last attempt failed; with refused_at, for good';
CREATE INDEX page_due ON page (receiver, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX page_troubled ON page (receiver, changed_at) WHERE problem <> '' OR attempts > 0;
CREATE INDEX page_quiet ON page (sent_at) WHERE due_at IS NULL;
