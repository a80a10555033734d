-- What agents have promised and not kept yet, beside where the ticket stands.

ALTER TABLE ticket_view
    ADD COLUMN update_by           timestamptz,
    ADD COLUMN callback_by         timestamptz,
    ADD COLUMN callback_not_before timestamptz;
COMMENT ON COLUMN ticket_view.update_by IS 'until when the customer was promised to hear from us again; null where nothing is promised';
COMMENT ON COLUMN ticket_view.callback_by IS 'until when the customer was promised to be called, and not before when';
