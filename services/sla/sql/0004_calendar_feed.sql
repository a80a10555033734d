-- What the iCal feeds of calendars.yaml last said, a row a feed. Whoever holds the lock fetches and writes; every process
-- reads, and works by the last good content however long the address has been silent.

CREATE TABLE calendar_feed (
    feed       text        PRIMARY KEY,
    source     text        NOT NULL,
    content    bytea       CHECK (octet_length(content) <= 1048576),
    digest     text,
    etag       text,
    modified   text,
    fetched_at timestamptz,
    changed_at timestamptz,
    failed_at  timestamptz,
    failures   integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    error      text,
    next_at    timestamptz NOT NULL,
    CONSTRAINT calendar_feed_content_is_whole CHECK (
        (content IS NULL) = (digest IS NULL) AND (content IS NULL) = (fetched_at IS NULL)
        AND (content IS NULL) = (changed_at IS NULL)
    ),
    CONSTRAINT calendar_feed_failure_is_whole CHECK ((failures = 0) = (error IS NULL)),
    CONSTRAINT calendar_feed_changed_when_fetched CHECK (changed_at <= fetched_at)
);
COMMENT ON COLUMN calendar_feed.source IS 'digest of the address, which itself may be a secret';
COMMENT ON COLUMN calendar_feed.content IS 'the last good one; null: there has been none yet';
COMMENT ON COLUMN calendar_feed.fetched_at IS 'when the content was last known to be what the address gives, 304 included';
COMMENT ON COLUMN calendar_feed.failures IS 'in a row, since the last good answer';
