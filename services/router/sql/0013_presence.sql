-- Who is on duty and heard of, offers to several agents at once, who knows a customer, and what else a queue may be.

ALTER TABLE assignment_agent ADD COLUMN duty jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN assignment_agent.duty IS
    'calendar and shifts, whether they are on one and until when; whether they accept by themselves, send heartbeats, have vanished. What is as usual is left out';
COMMENT ON COLUMN assignment_agent.load IS
    'what they are offered and hold, without what something else of theirs interrupts (mail under a call); that counts again as soon as it is not interrupted';
COMMENT ON COLUMN assignment_agent.ceiling IS
    'capacity; or the load that was there when the capacity was lowered below it or other channels came to interrupt; or what a forced transfer made of it, which is marked overfull. Offers never raise it';

-- A row is one request of a ticket. While it is offered, `agent_id` is the first of those who are asked and `others` in
-- `body` are the rest: at most nine, all different. Once it is assigned there is nobody else. So the unique index on live
-- rows goes on saying what it said: one live request a ticket.
CREATE FUNCTION assignment_asks_each_once(agent_id text, others jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT count(*) = count(DISTINCT asked.name)
              FROM (SELECT agent_id UNION ALL SELECT one ->> 'agent_id' FROM jsonb_array_elements(others) AS one)
                   AS asked (name));
ALTER TABLE assignment_work ADD CONSTRAINT assignment_work_asks_others_while_offered CHECK (
    coalesce(body -> 'others', '[]'::jsonb) = '[]'::jsonb
    OR (status = 'offered' AND jsonb_array_length(body -> 'others') <= 9
        AND assignment_asks_each_once(agent_id, body -> 'others')));

ALTER TABLE assignment_switches
    ADD COLUMN crowded    text[] NOT NULL DEFAULT '{}',
    ADD COLUMN at_risk    text[] NOT NULL DEFAULT '{}',
    ADD COLUMN overloaded text[] NOT NULL DEFAULT '{}';
UPDATE assignment_switches SET crowded = guarding;
COMMENT ON COLUMN assignment_switches.guarding IS 'the queues that lend nobody: those that are crowded or at risk';

-- Who took a ticket of a customer last, on whatever channel. Kept for 30 days.
CREATE TABLE assignment_known (
    domain      text        NOT NULL,
    customer_id text        NOT NULL,
    task        integer     NOT NULL,
    agent_id    text        NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (domain, customer_id)
) WITH (fillfactor = 70);
CREATE INDEX assignment_known_task ON assignment_known (task);

-- What agents could do, change by change. A record of a decision names the version of the roster that it was made of;
-- the last entry with that version, and for each agent the last one up to it, are that roster.
CREATE TABLE assignment_roster (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain   text        NOT NULL,
    version  text        NOT NULL,
    agent_id text        NOT NULL,
    place    integer     NOT NULL,
    profile  jsonb       NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN assignment_roster.place IS 'the number that stands for the agent in records; -1: they have left';
CREATE INDEX assignment_roster_version ON assignment_roster (version, id);
CREATE INDEX assignment_roster_agent ON assignment_roster (domain, agent_id, id);
