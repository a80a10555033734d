-- Routing domains: agents and the work they are offered and hold. This is the state of `router.assignment` itself, read
-- whole when a task is acquired. What must never happen is refused here too, whatever the code above believes.

CREATE TABLE assignment_agent (
    domain           text        NOT NULL,
    agent_id         text        NOT NULL,
    task             integer     NOT NULL,
    name             text        NOT NULL,
    presence         text        NOT NULL CHECK (presence IN ('available', 'away', 'offline')),
    capacity         integer     NOT NULL CHECK (capacity >= 0),
    load             integer     NOT NULL CHECK (load >= 0),
    ceiling          integer     NOT NULL CHECK (ceiling >= capacity),
    profile          jsonb       NOT NULL,
    last_assigned_at timestamptz,
    misses           integer     NOT NULL CHECK (misses >= 0),
    PRIMARY KEY (domain, agent_id),
    CONSTRAINT assignment_agent_is_not_overloaded CHECK (load <= ceiling)
) WITH (fillfactor = 70);
COMMENT ON COLUMN assignment_agent.ceiling IS
    'capacity, or the load that was there when the capacity was lowered below it; work never raises it';
COMMENT ON COLUMN assignment_agent.profile IS 'queues, skills and languages, as the roster last said';
CREATE INDEX assignment_agent_task ON assignment_agent (task);

CREATE TABLE assignment_work (
    domain          text        NOT NULL,
    work_id         text        NOT NULL,
    task            integer     NOT NULL,
    ticket_id       text        NOT NULL,
    conversation_id text        NOT NULL,
    queue           text        NOT NULL,
    priority        smallint    NOT NULL,
    status          text        NOT NULL CHECK (status IN ('waiting', 'offered', 'assigned', 'ended')),
    agent_id        text,
    reservation_id  text,
    cost            integer     NOT NULL CHECK (cost >= 0),
    entered_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    body            jsonb       NOT NULL,
    PRIMARY KEY (domain, work_id),
    CONSTRAINT assignment_work_is_whose CHECK (
        CASE status
            WHEN 'waiting'  THEN agent_id IS NULL AND reservation_id IS NULL
            WHEN 'offered'  THEN agent_id IS NOT NULL AND reservation_id IS NOT NULL AND expires_at IS NOT NULL
            WHEN 'assigned' THEN agent_id IS NOT NULL AND reservation_id IS NOT NULL
            ELSE true
        END)
) WITH (fillfactor = 70);
COMMENT ON COLUMN assignment_work.status IS 'ended work is kept for a quarter of an hour, to answer late answers';
-- One live offer or assignment a ticket in a domain. While a ticket moves to a queue of another domain it may be live in
-- both: their tasks read the withdrawal and the request independently. Across domains the stage of tickets holds it: a
-- ticket follows only the work that it asked for last.
CREATE UNIQUE INDEX assignment_work_one_live ON assignment_work (domain, ticket_id) WHERE status IN ('offered', 'assigned');
CREATE UNIQUE INDEX assignment_work_one_reservation ON assignment_work (reservation_id) WHERE status IN ('offered', 'assigned');
CREATE INDEX assignment_work_task ON assignment_work (task);
CREATE INDEX assignment_work_agent ON assignment_work (domain, agent_id) WHERE status IN ('offered', 'assigned');

-- What was decided about each ticket's way to a person, with the record of why.
CREATE TABLE routing_event (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id text        NOT NULL,
    work_id   text        NOT NULL,
    type      text        NOT NULL,
    at        timestamptz NOT NULL,
    data      jsonb       NOT NULL
);
CREATE INDEX routing_event_ticket ON routing_event (ticket_id, id);
