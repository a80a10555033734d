-- States are read and written whole, by key: nothing is ever asked of their parts in production, and to take a document
-- apart for each write is most of what a write of it costs the server. `json` keeps the text, checks that it is JSON, and
-- can still be looked into by a person (`value::jsonb`). The table is written anew once, under a lock.
ALTER TABLE state ALTER COLUMN value TYPE json USING value::json;
