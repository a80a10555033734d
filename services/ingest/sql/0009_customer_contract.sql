-- What a customer bought of our service, in the company's own word: promises may depend on it.

ALTER TABLE customer
    ADD COLUMN contract    text NOT NULL DEFAULT '' CHECK (length(contract) <= 100),
    ADD COLUMN contract_by text NOT NULL DEFAULT '',
    ADD COLUMN contract_at timestamptz;
COMMENT ON COLUMN customer.contract IS 'said of everybody who was one at that time, like the tier';
