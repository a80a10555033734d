"""Who is told elsewhere that somebody here has a ticket, and how it is told once."""
