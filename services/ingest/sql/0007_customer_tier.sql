-- How important a customer is to the company, in its own word, as a person of ours said. Rules of routing may ask for it.

ALTER TABLE customer
    ADD COLUMN tier    text NOT NULL DEFAULT '' CHECK (length(tier) <= 100),
    ADD COLUMN tier_by text NOT NULL DEFAULT '',
    ADD COLUMN tier_at timestamptz;
COMMENT ON COLUMN customer.tier IS 'said of everybody who was one at that time, so that it stays true when they are parted';
