-- The whole life of a ticket: what rests, what is no customer's, what went into another ticket, and whose it stays while a
-- colleague does a part of it.

ALTER TABLE ticket DROP CONSTRAINT ticket_status_check;
ALTER TABLE ticket ADD CONSTRAINT ticket_status_check CHECK (status IN (
    'queued', 'offered', 'assigned', 'pending', 'on_hold', 'snoozed', 'solved', 'spam', 'merged', 'closed'
));
ALTER TABLE ticket DROP CONSTRAINT ticket_has_its_agent;
ALTER TABLE ticket ADD CONSTRAINT ticket_has_its_agent CHECK (
    status NOT IN ('offered', 'assigned', 'pending', 'on_hold', 'snoozed') OR agent_id IS NOT NULL
);

ALTER TABLE ticket ADD COLUMN cause text;
ALTER TABLE ticket ADD COLUMN owner_id text;
ALTER TABLE ticket ADD COLUMN until_at timestamptz;
ALTER TABLE ticket ADD COLUMN merged_into text;
COMMENT ON COLUMN ticket.cause IS 'why the case arose, as it was solved; one of the causes of causes.yaml where there is one';
COMMENT ON COLUMN ticket.owner_id IS 'who stays responsible while a colleague does a part of it';
COMMENT ON COLUMN ticket.until_at IS 'when a ticket on hold or snoozed wakes by itself';
COMMENT ON COLUMN ticket.merged_into IS 'the ticket that it goes on in';
ALTER TABLE ticket ADD CONSTRAINT ticket_is_merged_into CHECK ((status = 'merged') = (merged_into IS NOT NULL));
ALTER TABLE ticket ADD CONSTRAINT ticket_rests_until CHECK (until_at IS NULL OR status IN ('on_hold', 'snoozed'));
ALTER TABLE ticket ADD CONSTRAINT ticket_is_not_its_own_target CHECK (merged_into <> ticket_id);

DROP INDEX ticket_open;
CREATE INDEX ticket_open ON ticket (queue, status) WHERE status NOT IN ('solved', 'closed', 'spam', 'merged');
CREATE INDEX ticket_merged_into ON ticket (merged_into) WHERE merged_into IS NOT NULL;

ALTER TABLE ticket_message DROP CONSTRAINT ticket_message_has_its_ticket;
ALTER TABLE ticket_message ADD CONSTRAINT ticket_message_has_its_ticket CHECK (
    (ticket_id IS NOT NULL) = (outcome IN ('opened', 'followed_up', 'added', 'reopened', 'carried'))
);
