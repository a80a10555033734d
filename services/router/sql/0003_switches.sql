-- Which queues of a routing domain borrow agents, and which lend none. Both depend on how the queues came to be as long as
-- they are (they open at one length and close at another), so they cannot be told from the waiting work.

CREATE TABLE assignment_switches (
    domain   text    NOT NULL PRIMARY KEY,
    task     integer NOT NULL,
    spilling text[]  NOT NULL,
    guarding text[]  NOT NULL
);
CREATE INDEX assignment_switches_task ON assignment_switches (task);
COMMENT ON COLUMN assignment_agent.profile IS
    'queues, skills, languages, limits by channel, as the roster last said; and the agent''s place, a small number that stays';
