-- What customers were asked and what they answered, with what is needed to weigh the answers: the chance to be asked, and
-- how those who answer differ from those who were asked.

CREATE TABLE survey (
    survey_id       text             PRIMARY KEY,
    notice_id       text             NOT NULL UNIQUE,
    ticket_id       text             NOT NULL,
    conversation_id text             NOT NULL,
    kind            text             NOT NULL CHECK (kind IN ('csat', 'ces', 'nps')),
    channel         text             NOT NULL,
    queue           text             NOT NULL,
    language        text             NOT NULL,
    outcome         text             NOT NULL CHECK (outcome IN ('at_once', 'after_more', 'reopened', 'unknown')),
    cause           text,
    probability     double precision CHECK (probability > 0 AND probability <= 1),
    asked_at        timestamptz      NOT NULL,
    status          text             NOT NULL DEFAULT 'requested'
                                     CHECK (status IN ('requested', 'sent', 'failed', 'unknown', 'suppressed'))
);
COMMENT ON TABLE survey IS 'who was asked how it went; one row a ticket and kind of question';
COMMENT ON COLUMN survey.probability IS 'the chance that this ticket was drawn; null where it is not known, so it has no weight';
COMMENT ON COLUMN survey.outcome IS 'solved with the first answer, after more, or reopened before it was asked about';
COMMENT ON COLUMN survey.status IS 'what became of the notice that asked; only who got it can answer it';

CREATE INDEX survey_asked ON survey (asked_at);
CREATE INDEX survey_conversation ON survey (conversation_id);

CREATE TABLE feedback (
    survey_id       text        PRIMARY KEY,
    feedback_id     text        NOT NULL,
    ticket_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('csat', 'ces', 'nps')),
    score           smallint    NOT NULL CHECK (score BETWEEN 0 AND 10),
    comment         text        NOT NULL DEFAULT '',
    language        text        NOT NULL DEFAULT '',
    may_share       boolean     NOT NULL,
    revision        integer     NOT NULL CHECK (revision >= 1),
    asked_at        timestamptz NOT NULL,
    first_at        timestamptz NOT NULL,
    given_at        timestamptz NOT NULL,
    is_late         boolean     NOT NULL,
    CHECK (given_at >= first_at)
);
COMMENT ON TABLE feedback IS 'what a survey was answered with: one row a survey, the latest word of whoever answered';
COMMENT ON COLUMN feedback.first_at IS 'when they answered first; given_at is when they said what stands here';
COMMENT ON COLUMN feedback.is_late IS 'whether the first answer came so long after the question that it is told apart';

CREATE INDEX feedback_asked ON feedback (asked_at);
CREATE INDEX feedback_conversation ON feedback (conversation_id);
