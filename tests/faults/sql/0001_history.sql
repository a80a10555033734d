CREATE TABLE history (
    name       text             NOT NULL PRIMARY KEY,
    key        text             NOT NULL,
    count      integer          NOT NULL,
    late_ms    double precision CHECK (late_ms >= 0),
    applied_at timestamptz      NOT NULL DEFAULT clock_timestamp()
);
