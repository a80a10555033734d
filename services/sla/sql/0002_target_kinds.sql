-- More kinds of clocks, and what reports and pages ask of each without looking anything up.

ALTER TABLE target DROP CONSTRAINT target_kind_check;
ALTER TABLE target ADD CONSTRAINT target_kind_check CHECK (
    kind IN (
        'first_response', 'next_response', 'later_response', 'periodic_update', 'callback',
        'time_to_offer', 'time_to_accept', 'tier', 'resolution'
    )
);

ALTER TABLE target
    ADD COLUMN queue         text             NOT NULL DEFAULT '',
    ADD COLUMN channel       text             NOT NULL DEFAULT '',
    ADD COLUMN priority      smallint         CHECK (priority BETWEEN 1 AND 4),
    ADD COLUMN customer_tier text             NOT NULL DEFAULT '',
    ADD COLUMN tier          text             NOT NULL DEFAULT '',
    ADD COLUMN calendar      text             NOT NULL DEFAULT '',
    ADD COLUMN elapsed_us    bigint           CHECK (elapsed_us >= 0),
    ADD COLUMN seconds       double precision CHECK (seconds >= 0),
    ADD CONSTRAINT target_tier_is_named CHECK ((kind = 'tier') = (tier <> '')),
    ADD CONSTRAINT target_used_when_met CHECK (elapsed_us IS NULL OR status = 'met');
CREATE INDEX target_ticket ON target (ticket_id);

COMMENT ON COLUMN target.queue IS 'the ticket''s queue while the clock ran; empty where it was not told';
COMMENT ON COLUMN target.priority IS 'the one whose rule the clock goes by';
COMMENT ON COLUMN target.customer_tier IS 'the company''s own word for the customer; empty where there is none';
COMMENT ON COLUMN target.tier IS 'the tier of the operational agreement, for the kind tier alone';
COMMENT ON COLUMN target.calendar IS 'by whose hours it counts; 24/7 is calendar time';
COMMENT ON COLUMN target.elapsed_us IS 'open, unpaused microseconds that it took, once it is met';
COMMENT ON COLUMN target.seconds IS 'the open time that it has';
