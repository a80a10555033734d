-- One answer a survey, whoever posts at the same moment; the comment itself is in the event alone.

CREATE TABLE survey_answer (
    survey_id   text        PRIMARY KEY,
    revision    integer     NOT NULL CHECK (revision >= 1),
    digest      text        NOT NULL,
    score       smallint    NOT NULL CHECK (score BETWEEN 0 AND 10),
    first_at    timestamptz NOT NULL,
    answered_at timestamptz NOT NULL,
    CHECK (answered_at >= first_at)
);
COMMENT ON TABLE survey_answer IS 'what a survey was answered with, for the page and against a second answer';
COMMENT ON COLUMN survey_answer.revision IS 'counts changed minds, from 1';
COMMENT ON COLUMN survey_answer.digest IS 'SHA-256 of score, comment and consent: the same post again is no change';
COMMENT ON COLUMN survey_answer.first_at IS 'when it was answered first; changes are taken for a while from then';

CREATE INDEX survey_answer_age ON survey_answer (answered_at);
