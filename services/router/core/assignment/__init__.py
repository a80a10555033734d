"""Who gets what: a routing domain, its people and its waiting work."""
