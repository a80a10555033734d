-- Who is who. A customer row is never deleted and never renamed: merging lets one lead to another, undoing lets it go.

ALTER TABLE customer
    ADD COLUMN merged_into text,
    ADD COLUMN version     bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_at   timestamptz,
    ADD FOREIGN KEY (workspace, merged_into) REFERENCES customer,
    ADD CHECK (merged_into <> customer_id);
CREATE INDEX customer_merged ON customer (workspace, merged_into) WHERE merged_into IS NOT NULL;
COMMENT ON COLUMN customer.merged_into IS 'the customer this one leads to; only customers that lead to nobody are merged, so there are no rings';
COMMENT ON COLUMN customer.version IS 'rises with every merge, parting and erasure: a decision made on an older one is made again';
COMMENT ON COLUMN customer.erased_at IS 'forgotten on demand; the id stays, so that counts still balance';

ALTER TABLE customer_address
    ADD COLUMN proof     text NOT NULL DEFAULT 'none' CHECK (proof IN
        ('none', 'order', 'vendor', 'vendor_verified', 'signed_channel', 'dmarc', 'identity_token', 'operator')),
    ADD COLUMN proved_at timestamptz,
    ADD COLUMN names     text[] NOT NULL DEFAULT '{}' CHECK (cardinality(names) <= 5),
    ADD CHECK ((proof = 'none') = (proved_at IS NULL));
COMMENT ON COLUMN customer_address.customer_id IS 'whose it was from the beginning; where that leads to is another matter';
COMMENT ON COLUMN customer_address.address IS 'mail in lower case, phones in E.164, a vendor''s id as channel/account/id';
COMMENT ON COLUMN customer_address.names IS 'names that messages from it gave, folded; three and more are a shared address';

CREATE INDEX participant_of ON participant (workspace, customer_id);

CREATE TABLE customer_claim (
    workspace   text        NOT NULL,
    kind        text        NOT NULL,
    address     text        NOT NULL,
    customer_id text        NOT NULL,
    is_attested boolean     NOT NULL,
    channel     text        NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (workspace, kind, address, customer_id),
    FOREIGN KEY (workspace, customer_id) REFERENCES customer
);
CREATE INDEX customer_claim_of ON customer_claim (workspace, customer_id);
COMMENT ON TABLE customer_claim IS 'addresses that a customer wrote or a vendor told beside the one they wrote from';
COMMENT ON COLUMN customer_claim.is_attested IS 'the vendor vouches for it, and the customer had proved to be theirs the address they wrote from';

CREATE TABLE customer_link (
    workspace text        NOT NULL,
    low_id    text        NOT NULL,
    high_id   text        NOT NULL,
    status    text        NOT NULL CHECK (status IN ('noted', 'suggested', 'merged', 'refused')),
    score     real        NOT NULL CHECK (score BETWEEN 0 AND 1),
    evidence  jsonb       NOT NULL,
    by        text        NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (workspace, low_id, high_id),
    CHECK (low_id < high_id),
    FOREIGN KEY (workspace, low_id) REFERENCES customer,
    FOREIGN KEY (workspace, high_id) REFERENCES customer
);
CREATE INDEX customer_link_high ON customer_link (workspace, high_id);
CREATE INDEX customer_link_open ON customer_link (workspace, at) WHERE status = 'suggested';
COMMENT ON COLUMN customer_link.status IS 'noted: not enough yet; refused: a person said that they are not the same, which stands';

CREATE TABLE customer_merge (
    workspace text        NOT NULL,
    merge_id  text        NOT NULL,
    into_id   text        NOT NULL,
    from_id   text        NOT NULL,
    score     real        NOT NULL,
    evidence  jsonb       NOT NULL,
    by        text        NOT NULL,
    at        timestamptz NOT NULL,
    undone_by text,
    undone_at timestamptz,
    PRIMARY KEY (workspace, merge_id),
    CHECK (into_id <> from_id),
    CHECK ((undone_at IS NULL) = (undone_by IS NULL)),
    FOREIGN KEY (workspace, into_id) REFERENCES customer,
    FOREIGN KEY (workspace, from_id) REFERENCES customer
);
CREATE UNIQUE INDEX customer_merge_live ON customer_merge (workspace, from_id) WHERE undone_at IS NULL;
CREATE INDEX customer_merge_into ON customer_merge (workspace, into_id);
COMMENT ON TABLE customer_merge IS 'every merge there ever was, with its reasons; one that was undone says when and by whom';

CREATE TABLE customer_interaction (
    workspace       text        NOT NULL,
    customer_id     text        NOT NULL,
    message_id      text        NOT NULL,
    conversation_id text        NOT NULL,
    input_id        text        NOT NULL,
    channel         text        NOT NULL,
    account         text        NOT NULL,
    language        text,
    words           text        NOT NULL DEFAULT '' CHECK (length(words) <= 120),
    body_ref        text,
    files           text[]      NOT NULL DEFAULT '{}',
    at              timestamptz NOT NULL,
    PRIMARY KEY (workspace, message_id)
);
CREATE INDEX customer_interaction_of ON customer_interaction (workspace, customer_id, at DESC);
CREATE INDEX customer_interaction_age ON customer_interaction (at);
COMMENT ON COLUMN customer_interaction.customer_id IS 'whose address wrote it, before any merge';
COMMENT ON COLUMN customer_interaction.body_ref IS 'the stored delivery, where it was too large to travel';
COMMENT ON COLUMN customer_interaction.files IS 'attachments kept, by their SHA-256';

CREATE TABLE customer_erasure (
    workspace     text        NOT NULL,
    erasure_id    text        NOT NULL,
    customer_id   text        NOT NULL,
    members       text[]      NOT NULL,
    conversations int         NOT NULL,
    messages      int         NOT NULL,
    files         text[]      NOT NULL DEFAULT '{}',
    by            text        NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (workspace, erasure_id)
);
COMMENT ON TABLE customer_erasure IS 'what was forgotten, in ids and numbers only; files are those nobody else has, still to be deleted';

CREATE INDEX customer_order_number ON customer_order (workspace, number);
CREATE INDEX customer_interaction_files ON customer_interaction USING gin (files) WHERE files <> '{}';
CREATE INDEX customer_interaction_body ON customer_interaction (body_ref) WHERE body_ref IS NOT NULL;
