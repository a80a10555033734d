"""The pure rules of ingest: what is a repeat, who wrote, which conversation, which language."""
