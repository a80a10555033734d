"""The six dashboards: what each shows, and the questions behind it. docs/dashboards.md has pictures of them.

Gauges of the whole installation are the same in each process, so `max`; those of a task are its owner's, so `max by (task)` and then a sum.
Counters add up. Where label sets are large, `> 0` leaves out what never happened.
"""

from typing import Final

from deploy.grafana.panels import Board, Panel, Query, Row, Variable

_QUEUE: Final = Variable("queue", "Queue", "signalbox_sla_open_targets", "queue")
_STAGE: Final = Variable("stage", "Stage", "signalbox_task_records_total", "stage")
_IN_QUEUE: Final = '{queue=~"$queue"}'
_IN_STAGE: Final = '{stage=~"$stage"}'


def _quantile(
    share: float, series: str, by: str, of: str = "", window: str = "$__rate_interval"
) -> str:
    grouped = f"{by}, le" if by else "le"
    return (
        f"histogram_quantile({share:g}, sum by ({grouped}) (rate({series}_bucket{of}[{window}])))"
    )


def _risen(counter: str, window: str, of: str = "") -> str:
    """How much a counter has risen whose series begin with their first increase, which `increase` does not see."""
    return f"sum(({counter}{of} unless {counter} offset {window}) or increase({counter}{of}[{window}])) or vector(0)"


OVERVIEW: Final = Board(
    uid="signalbox-overview",
    title="Signalbox: overview",
    description="For whoever leads a shift: who waits, who is there, how long it takes, and what asks for somebody.",
    variables=(_QUEUE,),
    since="now-12h",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Waiting",
                    "Tickets that nobody has been offered, as of the last decision.",
                    "short",
                    (
                        Query(
                            f"sum(max by (domain, queue) (signalbox_router_waiting_tickets{_IN_QUEUE}))"
                        ),
                    ),
                    "figure",
                    4,
                    warn=20,
                    bad=100,
                ),
                Panel(
                    "People who take work",
                    "Agents who are available and on duty, in all domains.",
                    "short",
                    (Query("sum(max by (domain) (signalbox_router_available_agents))"),),
                    "figure",
                    4,
                ),
                Panel(
                    "Open tickets",
                    "All that is not solved, whoever has it.",
                    "short",
                    (
                        Query(
                            'sum(max by (queue) (signalbox_sla_backlog_tickets{queue=~"$queue",older_than="0"}))'
                        ),
                    ),
                    "figure",
                    4,
                ),
                Panel(
                    "Oldest open ticket",
                    "By the clock on the wall; 0 where none is open.",
                    "s",
                    (Query(f"max(signalbox_sla_backlog_oldest_seconds{_IN_QUEUE})"),),
                    "figure",
                    4,
                    warn=86_400,
                    bad=3 * 86_400,
                ),
                Panel(
                    "Promises broken, last hour",
                    "Targets that were breached and stand so. Each is a customer who waited longer than we said.",
                    "short",
                    (Query(f"sum(signalbox_sla:targets_broken:increase_1h{_IN_QUEUE})"),),
                    "figure",
                    4,
                    warn=1,
                    bad=10,
                ),
                Panel(
                    "Alerts",
                    "That fire now. Each has a page in docs/runbooks.",
                    "short",
                    (
                        Query(
                            'count(ALERTS{alertname=~"Signalbox.*",alertstate="firing"}) or vector(0)'
                        ),
                    ),
                    "figure",
                    4,
                    warn=1,
                    bad=5,
                ),
            ),
        ),
        Row(
            "Waiting",
            (
                Panel(
                    "Waiting by queue",
                    "Tickets that nobody has been offered.",
                    "short",
                    (
                        Query(
                            f"max by (domain, queue) (signalbox_router_waiting_tickets{_IN_QUEUE})",
                            "{{queue}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Come in and done, an hour",
                    "Tickets opened, solved and reopened in the hour before. Opened above solved for long: the backlog grows.",
                    "short",
                    (
                        Query(
                            'sum by (what) (increase(signalbox_sla_cases_total{queue=~"$queue"}[1h]))',
                            "{{what}}",
                        ),
                    ),
                ),
                Panel(
                    "First answer, 9 in 10 within",
                    "Open, unpaused time from the message to the first answer, over the hour before, right to a bucket.",
                    "s",
                    (
                        Query(
                            f"signalbox_sla:first_response_seconds:p90_1h{_IN_QUEUE}", "{{queue}}"
                        ),
                    ),
                ),
                Panel(
                    "Backlog by age",
                    "Open tickets older than so long. The top line is all of them.",
                    "short",
                    (
                        Query(
                            'sum by (older_than) (max by (queue, older_than) (signalbox_sla_backlog_tickets{queue=~"$queue"}))',
                            "older than {{older_than}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Promises and customers",
            (
                Panel(
                    "Promises kept, last hour",
                    "Share of the targets that ended and were met in time.",
                    "percentunit",
                    (
                        Query(
                            f"min by (queue) (signalbox_sla:targets_within:share_1h{_IN_QUEUE})",
                            "{{queue}}",
                        ),
                    ),
                ),
                Panel(
                    "Open targets",
                    "What we owe now, by how it stands: running, paused, at risk, breached.",
                    "short",
                    (
                        Query(
                            'sum by (status) (max by (queue, target, status) (signalbox_sla_open_targets{queue=~"$queue"}))',
                            "{{status}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Where messages come from, an hour",
                    "Customers' messages by channel.",
                    "short",
                    (
                        Query(
                            'sum by (channel) (increase(signalbox_ingest_inputs_total{outcome="message"}[1h])) > 0',
                            "{{channel}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Went up to technical support, an hour",
                    "Escalations by what moved them: a person's command, or which rule.",
                    "short",
                    (
                        Query(
                            "sum by (by) (increase(signalbox_router_escalations_total[1h])) > 0",
                            "{{by}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "How it went, by customers, a day",
                    "Answers to surveys by level.",
                    "short",
                    (
                        Query(
                            "sum by (level) (increase(signalbox_notifier_feedback_total[1d]))",
                            "{{level}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "What asks for somebody",
                    "Alerts that fire, with their severity. Each has a page of its name in docs/runbooks.",
                    "none",
                    (
                        Query(
                            'sum by (alertname, severity, service) (ALERTS{alertname=~"Signalbox.*",alertstate="firing"})'
                        ),
                    ),
                    "table",
                    quiet="No alert fires while all is well.",
                ),
            ),
        ),
    ),
)

ROUTING: Final = Board(
    uid="signalbox-routing",
    title="Signalbox: routing",
    description="What becomes of messages, who is offered what, how long an offer takes, and where offers come to nothing.",
    rows=(
        Row(
            "Offers",
            (
                Panel(
                    "From entry to offer",
                    "From the ticket's entry, or the customer's last reply, to an offer: half, nine in ten, 99 in a hundred within.",
                    "s",
                    tuple(
                        Query(
                            _quantile(share, "signalbox_router_wait_seconds", "", window="5m"), name
                        )
                        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
                    ),
                ),
                Panel(
                    "What assignment told",
                    "Offers that rise without assignments: nobody accepts.",
                    "ops",
                    (
                        Query(
                            "sum by (event) (rate(signalbox_router_routing_events_total[$__rate_interval])) > 0",
                            "{{event}}",
                        ),
                    ),
                ),
                Panel(
                    "Waiting by queue",
                    "As of the domain's last decision.",
                    "short",
                    (
                        Query(
                            "max by (domain, queue) (signalbox_router_waiting_tickets)",
                            "{{domain}} {{queue}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "People who take work",
                    "Available and on duty, by domain. 0 with tickets waiting: nobody is there.",
                    "short",
                    (Query("max by (domain) (signalbox_router_available_agents)", "{{domain}}"),),
                ),
                Panel(
                    "Back to the queue, an hour",
                    "Why tickets went back. Expired: offers go to people who do not look. Vanished: their programs fell silent.",
                    "short",
                    (
                        Query(
                            "sum by (reason) (increase(signalbox_router_requeued_total[1h]))",
                            "{{reason}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Wait for somebody who does not exist",
                    "Tickets that ask for more than anybody of the roster has. Above 0 is an alarm.",
                    "short",
                    (
                        Query(
                            "max by (domain, queue) (signalbox_router_unmatchable_tickets)",
                            "{{domain}} {{queue}}",
                        ),
                    ),
                    bad=1,
                ),
            ),
        ),
        Row(
            "Tickets",
            (
                Panel(
                    "Messages by what became of them",
                    "Their sum is what the router read of customers' messages.",
                    "ops",
                    (
                        Query(
                            "sum by (outcome) (rate(signalbox_router_messages_total[$__rate_interval]))",
                            "{{outcome}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Escalations, an hour",
                    "By what moved them up.",
                    "short",
                    (
                        Query(
                            "sum by (by) (increase(signalbox_router_escalations_total[1h])) > 0",
                            "{{by}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Moved up late by",
                    "How late a ticket's age moved it up, 99 in a hundred within: what the router was down, or behind.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99, "signalbox_router_escalation_late_seconds", "", window="1h"
                            ),
                            "p99",
                        ),
                    ),
                    quiet="The demo is over before a ticket's age moves it up.",
                ),
                Panel(
                    "Given back, merged, forced, an hour",
                    "Escalations given back mean that the desks disagree on what is whose; a forced owner ends it.",
                    "short",
                    (
                        Query(
                            "sum by (what) (increase(signalbox_router_returns_total[1h]))",
                            "returned: {{what}}",
                        ),
                        Query("sum(increase(signalbox_router_merges_total[1h]))", "merged"),
                        Query(
                            "sum(increase(signalbox_router_owners_forced_total[1h]))",
                            "owner forced",
                        ),
                    ),
                ),
                Panel(
                    "Commands that did not fit, an hour",
                    "By reason. Many `not_assignee`: a tool shows agents old tickets.",
                    "short",
                    (
                        Query(
                            "sum by (reason) (increase(signalbox_router_commands_refused_total[1h])) > 0",
                            "{{reason}}",
                        ),
                    ),
                    "stacked",
                    quiet="The demo's agents give no command that does not fit.",
                ),
                Panel(
                    "On call was told, an hour",
                    "Tickets that fell under a level of the policy.",
                    "short",
                    (
                        Query(
                            "sum by (on_call) (increase(signalbox_router_pages_total[1h]))",
                            "{{on_call}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Shown elsewhere",
            (
                Panel(
                    "Helpdesks, chat tools, boards, an hour",
                    "What they were to show of tickets, by what became of it.",
                    "short",
                    (
                        Query(
                            "sum by (vendor, outcome) (increase(signalbox_router_elsewhere_total[1h])) > 0",
                            "{{vendor}} {{outcome}}",
                        ),
                    ),
                    "stacked",
                    quiet="The demo shows tickets in no other tool.",
                ),
                Panel(
                    "A vendor's call takes",
                    "99 in a hundred within, reading included.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99, "signalbox_router_elsewhere_seconds", "vendor", window="15m"
                            )
                            + " >= 0",
                            "{{vendor}}",
                        ),
                    ),
                    quiet="The demo calls no vendor.",
                ),
            ),
        ),
    ),
)

SLA: Final = Board(
    uid="signalbox-sla",
    title="Signalbox: promises and clocks",
    description="What we owe, what was kept, how late breaches are noticed, and whether the times that customers are told are true.",
    variables=(_QUEUE,),
    since="now-24h",
    rows=(
        Row(
            "What we owe",
            (
                Panel(
                    "Open targets",
                    "By how they stand.",
                    "short",
                    (
                        Query(
                            'sum by (status) (max by (queue, target, status) (signalbox_sla_open_targets{queue=~"$queue"}))',
                            "{{status}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Longest running",
                    "Age of the oldest open target of each kind, by the clock on the wall.",
                    "s",
                    (
                        Query(
                            f"max by (target) (signalbox_sla_longest_running_seconds{_IN_QUEUE})",
                            "{{target}}",
                        ),
                    ),
                ),
                Panel(
                    "Backlog by queue",
                    "Open tickets.",
                    "short",
                    (
                        Query(
                            'max by (queue) (signalbox_sla_backlog_tickets{queue=~"$queue",older_than="0"})',
                            "{{queue}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Oldest open ticket",
                    "By queue; 0 where none is open.",
                    "s",
                    (
                        Query(
                            f"max by (queue) (signalbox_sla_backlog_oldest_seconds{_IN_QUEUE})",
                            "{{queue}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What was kept",
            (
                Panel(
                    "Targets by outcome, an hour",
                    "met is met in time; breaches that stand are breached less retracted.",
                    "short",
                    (
                        Query(
                            'sum by (outcome) (increase(signalbox_sla_targets_total{queue=~"$queue"}[1h])) > 0',
                            "{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Share broken, an hour and thirty days",
                    "Of the targets that ended, beside what the objective allows.",
                    "percentunit",
                    (
                        Query(
                            f"max by (queue) (signalbox_sla:targets_broken:share_1h{_IN_QUEUE})",
                            "{{queue}}, an hour",
                        ),
                        Query(
                            f"max by (queue) (signalbox_sla:targets_broken:share_30d{_IN_QUEUE})",
                            "{{queue}}, thirty days",
                        ),
                        Query("1 - signalbox_sla:objective:share", "allowed"),
                    ),
                ),
                Panel(
                    "First answer",
                    "Median of the hour before, by queue.",
                    "s",
                    (
                        Query(
                            f"signalbox_sla:first_response_seconds:median_1h{_IN_QUEUE}",
                            "{{queue}}",
                        ),
                    ),
                ),
                Panel(
                    "Breaches are noticed after",
                    "From the deadline, 99 in a hundred within. While the service runs that is well below a second.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99,
                                "signalbox_sla_breach_detection_seconds",
                                "target",
                                window="1h",
                            )
                            + " >= 0",
                            "{{target}}",
                        ),
                    ),
                    quiet="The demo breaks a promise in some runs only.",
                ),
            ),
        ),
        Row(
            "What customers are told",
            (
                Panel(
                    "Promises kept",
                    "Share of the latest promises of a queue (400 at most) that were kept. Right between 0.90 and 0.97.",
                    "percentunit",
                    (
                        Query(
                            f"min by (queue) (signalbox_sla_promise_kept_share{_IN_QUEUE}) >= 0",
                            "{{queue}}",
                        ),
                    ),
                    quiet="A new installation has promised nothing yet.",
                ),
                Panel(
                    "Promises made, an hour",
                    "By whether they were kept.",
                    "short",
                    (
                        Query(
                            'sum by (kept) (increase(signalbox_sla_promises_total{queue=~"$queue"}[1h]))',
                            "kept: {{kept}}",
                        ),
                    ),
                ),
                Panel(
                    "Measured waits are multiplied by",
                    "Before they are promised, as past promises have taught; 1 where they are right.",
                    "none",
                    (
                        Query(
                            f"max by (queue) (signalbox_sla_promise_factor{_IN_QUEUE})",
                            "{{queue}}",
                        ),
                    ),
                ),
                Panel(
                    "Estimates are as old as",
                    "Since they were last brought up to date.",
                    "s",
                    (Query("time() - (max(signalbox_sla_estimates_at_seconds) > 0)", "estimates"),),
                ),
            ),
        ),
        Row(
            "Who is told of it",
            (
                Panel(
                    "Pages, an hour",
                    "Attempts to tell a receiver of pages.yaml, by outcome.",
                    "short",
                    (
                        Query(
                            "sum by (receiver, outcome) (increase(signalbox_sla_pages_total[1h]))",
                            "{{receiver}} {{outcome}}",
                        ),
                    ),
                    quiet="The demo's policy has no receiver.",
                ),
                Panel(
                    "Not told for",
                    "Age of the oldest news that a receiver was not told, and of the oldest alert that no process has taken up.",
                    "s",
                    (
                        Query(
                            "max by (receiver) (signalbox_sla_page_undelivered_seconds)",
                            "{{receiver}}",
                        ),
                        Query("max(signalbox_sla_page_unread_seconds)", "taken up by nobody"),
                    ),
                    quiet="The demo's policy has no receiver.",
                ),
                Panel(
                    "Calendars' feeds were read",
                    "So long ago. Clocks run by what each last said.",
                    "s",
                    (Query("min by (feed) (signalbox_sla_calendar_feed_age_seconds)", "{{feed}}"),),
                    quiet="The demo's calendars have no feed.",
                ),
                Panel(
                    "Tickets for each order",
                    "Over the last 28 days whose orders were imported.",
                    "none",
                    (Query("max(signalbox_sla_contact_ratio) >= 0", "tickets an order"),),
                    quiet="The demo imports no orders.",
                ),
            ),
        ),
    ),
)

CHANNELS: Final = Board(
    uid="signalbox-channels",
    title="Signalbox: channels and providers",
    description="What comes in by which way and is refused why; what goes out by which provider and does not arrive.",
    rows=(
        Row(
            "In",
            (
                Panel(
                    "Accepted",
                    "Inputs that were answered 2xx, durable by then, by way in.",
                    "reqps",
                    (
                        Query(
                            "sum by (way) (rate(signalbox_ingest_accepted_total[$__rate_interval])) > 0",
                            "{{way}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Refused, an hour",
                    "For what the sender did, by reason.",
                    "short",
                    (
                        Query(
                            "sum by (way, reason) (increase(signalbox_ingest_refused_total[1h])) > 0",
                            "{{way}}: {{reason}}",
                        ),
                    ),
                    "stacked",
                    quiet="The demo's senders are refused nothing in most runs.",
                ),
                Panel(
                    "Put off, an hour",
                    "Answered 503 or 451 because the database was away. Senders try again.",
                    "short",
                    (
                        Query(
                            "sum by (way) (increase(signalbox_ingest_unavailable_total[1h]))",
                            "{{way}}",
                        ),
                    ),
                    "stacked",
                    bad=1,
                ),
                Panel(
                    "Inputs by what became of them, an hour",
                    "By channel.",
                    "short",
                    (
                        Query(
                            "sum by (channel, outcome) (increase(signalbox_ingest_inputs_total[1h]))",
                            "{{channel}} {{outcome}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Vendors' requests refused, an hour",
                    "bad_signature that rises after a change of a secret: the new one is not everywhere yet.",
                    "short",
                    (
                        Query(
                            "sum by (channel, reason) (increase(signalbox_ingest_channel_refused_total[1h]))",
                            "{{channel}}: {{reason}}",
                        ),
                    ),
                    "stacked",
                    quiet="No vendor writes to the demo.",
                ),
                Panel(
                    "Looks into channels, an hour",
                    "Channels that are asked for news, by what came of it.",
                    "short",
                    (
                        Query(
                            "sum by (channel, outcome) (increase(signalbox_ingest_looks_total[1h])) > 0",
                            "{{channel}} {{outcome}}",
                        ),
                    ),
                    "stacked",
                    quiet="The demo asks no vendor.",
                ),
                Panel(
                    "Not looked into for",
                    "Since the last look without error: polled channels and mailboxes.",
                    "s",
                    (
                        Query(
                            "signalbox_ingest:channel_look:age_seconds", "{{channel}} {{account}}"
                        ),
                        Query(
                            "time() - max by (account) (signalbox_ingest_imap_last_look_timestamp_seconds > 0)",
                            "mailbox {{account}}",
                        ),
                    ),
                    quiet="The demo reads no mailbox and asks no vendor.",
                ),
                Panel(
                    "To be read back",
                    "Deliveries whose content is still to be read through the vendor's API, and secrets that are missing.",
                    "short",
                    (
                        Query("max(signalbox_ingest_read_back_waiting)", "waiting"),
                        Query("max(signalbox_ingest_secrets_missing)", "secrets missing"),
                    ),
                ),
                Panel(
                    "Attachments, an hour",
                    "Kept, refused, or not stored because the store was away.",
                    "short",
                    (
                        Query(
                            "sum by (outcome) (increase(signalbox_ingest_attachments_total[1h]))",
                            "{{outcome}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Connected now",
                    "Web chats that wait for news, requests that wait for what becomes of them, SMTP connections.",
                    "short",
                    (
                        Query("sum(signalbox_ingest_webchat_listeners)", "web chats"),
                        Query("sum(signalbox_ingest_waiters)", "waiting requests"),
                        Query("sum(signalbox_ingest_smtp_connections)", "SMTP"),
                    ),
                ),
            ),
        ),
        Row(
            "Out",
            (
                Panel(
                    "Notices by outcome, an hour",
                    "requested is sent, failed, unknown or superseded, once all is settled.",
                    "short",
                    (
                        Query(
                            "sum by (outcome) (increase(signalbox_notifier_notices_total[1h])) > 0",
                            "{{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Notices by occasion, an hour",
                    "What customers are told of.",
                    "short",
                    (
                        Query(
                            'sum by (occasion) (increase(signalbox_notifier_notices_total{outcome="sent"}[1h])) > 0',
                            "{{occasion}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Not sent on purpose, an hour",
                    "By reason. A rise of unverified_limit: somebody fills in forms with other people's addresses.",
                    "short",
                    (
                        Query(
                            "sum by (reason) (increase(signalbox_notifier_suppressed_total[1h])) > 0",
                            "{{reason}}",
                        ),
                    ),
                    "stacked",
                    quiet="The demo holds notices back in some runs only.",
                ),
                Panel(
                    "A provider takes",
                    "From hand-over to the end, 99 in a hundred within.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99, "signalbox_notifier_provider_seconds", "provider", window="1h"
                            )
                            + " >= 0",
                            "{{provider}}",
                        ),
                    ),
                ),
                Panel(
                    "Providers in trouble",
                    "1 while an account is left alone because it failed, or cannot send for its credentials.",
                    "none",
                    (
                        Query(
                            "max by (provider, account) (signalbox_notifier_provider_open)",
                            "{{provider}} {{account}}: left alone",
                        ),
                        Query(
                            "max by (provider, account) (signalbox_notifier_account_trouble)",
                            "{{provider}} {{account}}: credentials",
                        ),
                    ),
                    bad=1,
                    quiet="The demo sends by one mail server alone, which is no account.",
                ),
                Panel(
                    "Due and not sent for",
                    "The oldest notice that was asked for, and the oldest that was put off and is over its time.",
                    "s",
                    (
                        Query(
                            "max by (status) (signalbox_notifier_oldest_unsent_seconds)",
                            "{{status}}",
                        ),
                    ),
                ),
                Panel(
                    "For a person to look at",
                    "Notices of three days that failed or of which nobody knows whether they arrived.",
                    "short",
                    (
                        Query(
                            "max by (status) (signalbox_notifier_unresolved_notices)", "{{status}}"
                        ),
                    ),
                ),
                Panel(
                    "What could be promised, an hour",
                    "As a new ticket's acknowledgement went. not_in_time and late rise: sla lags.",
                    "short",
                    (
                        Query(
                            "sum by (outcome) (increase(signalbox_notifier_promises_total[1h]))",
                            "{{outcome}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Articles named, an hour",
                    "Searches for articles that may answer a new ticket.",
                    "short",
                    (
                        Query(
                            "sum by (outcome) (increase(signalbox_notifier_article_searches_total[1h]))",
                            "{{outcome}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Asked and answered, a day",
                    "Surveys sent, and what came back.",
                    "short",
                    (
                        Query(
                            "sum by (kind) (increase(signalbox_notifier_surveys_total[1d]))",
                            "{{kind}} asked",
                        ),
                        Query(
                            "sum by (kind, level) (increase(signalbox_notifier_feedback_total[1d]))",
                            "{{kind}} {{level}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

LEDGER: Final = Board(
    uid="signalbox-ledger",
    title="Signalbox: Kafka and ledger",
    description="Stage by stage: what is read, how far behind, who owns which task, what waits to be published, what was set aside.",
    variables=(_STAGE,),
    since="now-1h",
    rows=(
        Row(
            "Must be zero",
            (
                Panel(
                    "Tasks at a gap",
                    "Records were lost before them. SignalboxTaskHalted says what to do.",
                    "short",
                    (Query(f"sum(max by (stage, task) (signalbox_task_halted{_IN_STAGE}))"),),
                    "figure",
                    6,
                    bad=1,
                ),
                Panel(
                    "Tasks without owner",
                    "Whose lease no process holds.",
                    "short",
                    (
                        Query(
                            f"count(max by (stage, task) (signalbox_task_owned{_IN_STAGE}) == 0) or vector(0)"
                        ),
                    ),
                    "figure",
                    6,
                    bad=1,
                ),
                Panel(
                    "Dead letters, a day",
                    "Records set aside, by all stages.",
                    "short",
                    (Query(_risen("signalbox_dead_letters_total", "1d", _IN_STAGE)),),
                    "figure",
                    6,
                    warn=1,
                ),
                Panel(
                    "Oldest event not published",
                    "Committed, and not yet acknowledged by Kafka.",
                    "s",
                    (Query(f"max(signalbox_outbox_age_seconds{_IN_STAGE})"),),
                    "figure",
                    6,
                    warn=5,
                    bad=30,
                ),
            ),
        ),
        Row(
            "Reading",
            (
                Panel(
                    "Records read",
                    "By stage and what became of them. read is applied, duplicate, ignored or parked, always.",
                    "ops",
                    (
                        Query(
                            f"sum by (stage, outcome) (rate(signalbox_task_records_total{_IN_STAGE}[$__rate_interval]))",
                            "{{stage}} {{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Behind",
                    "Records before each stage, by topic.",
                    "short",
                    (
                        Query(
                            'sum by (stage, topic) (signalbox:lag:records{stage=~"$stage"})',
                            "{{stage}} {{topic}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Behind by",
                    "How long that takes at the pace of five minutes.",
                    "s",
                    (Query('signalbox:lag:seconds{stage=~"$stage"} >= 0', "{{stage}}"),),
                ),
                Panel(
                    "A batch takes",
                    "From its records in hand to the commit, 99 in a hundred within.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99,
                                "signalbox_task_batch_seconds",
                                "stage",
                                _IN_STAGE,
                                window="5m",
                            )
                            + " >= 0",
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Records in a batch",
                    "Nine in ten have at most so many. Grows when a stage is behind.",
                    "short",
                    (
                        Query(
                            _quantile(
                                0.9,
                                "signalbox_task_batch_records",
                                "stage",
                                _IN_STAGE,
                                window="5m",
                            )
                            + " >= 0",
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Given out and not applied",
                    "Events that a writer numbered and a reader has not yet applied. For long, with nothing waiting: the log's end is lost.",
                    "short",
                    (
                        Query(
                            'sum by (stage, topic) (signalbox:sequence:behind{stage=~"$stage"})',
                            "{{stage}} {{topic}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Leases",
            (
                Panel(
                    "Tasks owned",
                    "By stage and process.",
                    "short",
                    (
                        Query(
                            f"sum by (stage, instance) (signalbox_task_owned{_IN_STAGE})",
                            "{{stage}} {{instance}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Leases taken, an hour",
                    "How often tasks changed hands.",
                    "short",
                    (
                        Query(
                            f"sum by (stage) (delta((max by (stage, task) (signalbox_task_epoch{_IN_STAGE}))[1h:15s]))",
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Memory dropped and batches taken again, an hour",
                    "By reason. fenced: frozen processes; database: PostgreSQL.",
                    "short",
                    (
                        Query(
                            f"sum by (stage, reason) (increase(signalbox_task_lost_total{_IN_STAGE}[1h]))",
                            "{{stage}} lost: {{reason}}",
                        ),
                        Query(
                            f"sum by (stage, reason) (increase(signalbox_task_retried_total{_IN_STAGE}[1h]))",
                            "{{stage}} again: {{reason}}",
                        ),
                    ),
                    quiet="Nothing is lost or taken again while all is well; the series begin with the first.",
                ),
                Panel(
                    "Taking a task lasts",
                    "From assignment to the first poll, nine in ten within, over an hour.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.9, "signalbox_task_acquire_seconds", "stage", _IN_STAGE, "1h"
                            )
                            + " >= 0",
                            "{{stage}}",
                        ),
                    ),
                    quiet="Tasks are taken before the first scrape.",
                ),
            ),
        ),
        Row(
            "Writing",
            (
                Panel(
                    "Published",
                    "Events that the broker acknowledged.",
                    "ops",
                    (
                        Query(
                            f"sum by (stage) (rate(signalbox_relay_published_total{_IN_STAGE}[$__rate_interval]))",
                            "{{stage}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Not yet published",
                    "Events committed and not yet acknowledged.",
                    "short",
                    (
                        Query(
                            f"sum by (stage) (max by (stage, task) (signalbox_outbox_rows{_IN_STAGE}))",
                            "{{stage}}",
                        ),
                    ),
                    "stacked",
                ),
                Panel(
                    "Timers are late by",
                    "From due to commit, 99 in a hundred within.",
                    "s",
                    (
                        Query(
                            _quantile(
                                0.99,
                                "signalbox_timer_lateness_seconds",
                                "stage",
                                _IN_STAGE,
                                window="15m",
                            )
                            + " >= 0",
                            "{{stage}}",
                        ),
                    ),
                    quiet="In the demo a timer is due once or never; a rate needs two.",
                ),
                Panel(
                    "Timers in memory, effects open",
                    "Timers of the next minute, and effects outside the database that are not settled.",
                    "short",
                    (
                        Query(
                            f"sum by (stage) (signalbox_timers_loaded{_IN_STAGE})",
                            "{{stage}} timers",
                        ),
                        Query(
                            f"sum by (stage) (signalbox_effects_open{_IN_STAGE})",
                            "{{stage}} effects",
                        ),
                    ),
                ),
                Panel(
                    "The gateway's spool",
                    "Accepted inputs that are not numbered yet.",
                    "short",
                    (Query("max(signalbox_spool_rows)", "rows"),),
                ),
                Panel(
                    "The spool's commit takes",
                    "99 in a hundred within. PostgreSQL's disk.",
                    "s",
                    (
                        Query(
                            _quantile(0.99, "signalbox_spool_commit_seconds", "", window="5m"),
                            "p99",
                        ),
                    ),
                ),
                Panel(
                    "Versions of the policy",
                    "Processes by the version in force. More than one for minutes: somebody did not take the change.",
                    "short",
                    (Query("count by (version) (signalbox_policy_info == 1)", "{{version}}"),),
                    "stacked",
                ),
                Panel(
                    "Clocks are off by",
                    "Beside PostgreSQL's, at the last acquisition. Above 0: the process is ahead.",
                    "s",
                    (
                        Query(
                            f"max by (stage) (signalbox_clock_skew_seconds{_IN_STAGE})",
                            "{{stage}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

GOLDEN: Final = Board(
    uid="signalbox-golden",
    title="Signalbox: golden signals",
    description="For whoever keeps it running: latency, traffic, errors, saturation, and what is left of each objective's allowance.",
    since="now-6h",
    rows=(
        Row(
            "Allowances",
            (
                Panel(
                    "Left of thirty days",
                    "Of what each objective allows to go wrong. Below 0: it is overspent. docs/slo.md says what each counts.",
                    "percentunit",
                    (
                        Query(
                            "1 - signalbox_slo:bad:share_30d / (1 - signalbox_slo:objective:share)",
                            "{{slo}}",
                        ),
                    ),
                    "bars",
                    8,
                ),
                Panel(
                    "Used up, times as fast as allowed",
                    "Over an hour. 14.4 pages.",
                    "none",
                    (
                        Query(
                            "signalbox_slo:bad:share_1h / (1 - signalbox_slo:objective:share)",
                            "{{slo}}",
                        ),
                    ),
                    width=8,
                    warn=6,
                    bad=14.4,
                ),
                Panel(
                    "Processes that are ready",
                    "By job; one line less is one process less.",
                    "short",
                    (Query("sum by (job) (signalbox_ready)", "{{job}}"),),
                    width=8,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    "The gateway answers within",
                    "From a whole request to its durable answer.",
                    "s",
                    tuple(
                        Query(
                            _quantile(share, "signalbox_ingest_accept_seconds", "", window="5m"),
                            name,
                        )
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ),
                    width=8,
                ),
                Panel(
                    "From entry to offer",
                    "People's part is in it: nobody there, nobody free.",
                    "s",
                    tuple(
                        Query(
                            _quantile(share, "signalbox_router_wait_seconds", "", window="5m"), name
                        )
                        for share, name in ((0.5, "p50"), (0.99, "p99"))
                    ),
                    width=8,
                ),
                Panel(
                    "Batches and sends",
                    "99 in a hundred within: a batch's commit by stage, an attempt to send.",
                    "s",
                    (
                        Query(
                            _quantile(0.99, "signalbox_task_batch_seconds", "stage", window="5m")
                            + " >= 0",
                            "batch {{stage}}",
                        ),
                        Query(
                            _quantile(0.99, "signalbox_notifier_send_seconds", "", window="5m"),
                            "send",
                        ),
                    ),
                    width=8,
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel(
                    "Accepted",
                    "By the gateway, all ways in.",
                    "reqps",
                    (
                        Query(
                            "sum(rate(signalbox_ingest_accepted_total[$__rate_interval]))",
                            "accepted",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Records",
                    "Read by each stage.",
                    "ops",
                    (
                        Query(
                            "sum by (stage) (rate(signalbox_task_records_total[$__rate_interval]))",
                            "{{stage}}",
                        ),
                    ),
                    "stacked",
                    8,
                ),
                Panel(
                    "Tickets and notices, an hour",
                    "Opened, and told.",
                    "short",
                    (
                        Query(
                            'sum(increase(signalbox_router_messages_total{outcome=~"opened|followed_up"}[1h]))',
                            "tickets",
                        ),
                        Query(
                            'sum(increase(signalbox_notifier_notices_total{outcome="sent"}[1h]))',
                            "notices sent",
                        ),
                    ),
                    width=8,
                ),
            ),
        ),
        Row(
            "Errors",
            (
                Panel(
                    "Senders put off",
                    "Share of what came that was answered 503 or 451, over five minutes.",
                    "percentunit",
                    (Query('signalbox_slo:bad:share_5m{slo="gateway"}', "put off"),),
                    width=8,
                    bad=0.0144,
                ),
                Panel(
                    "Set aside, failed, unknown, an hour",
                    "Dead letters; notices that failed, came back, or of which nobody knows.",
                    "short",
                    (
                        Query(
                            _risen("signalbox_dead_letters_total", "1h"),
                            "dead letters",
                        ),
                        Query(
                            'sum by (outcome) (increase(signalbox_notifier_notices_total{outcome=~"failed|bounced|unknown"}[1h]))',
                            "notices {{outcome}}",
                        ),
                    ),
                    width=8,
                ),
                Panel(
                    "Publish failures, refused policies, an hour",
                    "Each publish failure makes a new producer. A refused policy leaves the old one in force.",
                    "short",
                    (
                        Query(
                            _risen("signalbox_relay_errors_total", "1h"),
                            "publish",
                        ),
                        Query(
                            'sum(increase(signalbox_policy_reloads_total{result="refused"}[1h]))',
                            "policy",
                        ),
                    ),
                    width=8,
                ),
            ),
        ),
        Row(
            "Saturation",
            (
                Panel(
                    "Behind by",
                    "How long what lies before a stage takes at its pace of five minutes.",
                    "s",
                    (Query("signalbox:lag:seconds >= 0", "{{stage}}"),),
                    width=8,
                    warn=60,
                    bad=120,
                ),
                Panel(
                    "Waits in PostgreSQL",
                    "Events to be published, accepted inputs to be numbered.",
                    "short",
                    (
                        Query("sum(max by (stage, task) (signalbox_outbox_rows))", "outbox"),
                        Query("max(signalbox_spool_rows)", "spool"),
                    ),
                    "stacked",
                    8,
                ),
                Panel(
                    "Held open",
                    "Callers that wait for the spool's commit, requests that wait for what becomes of them, SMTP connections.",
                    "short",
                    (
                        Query("sum(signalbox_spool_waiting_requests)", "spool's commit"),
                        Query("sum(signalbox_ingest_waiters)", "waiting requests"),
                        Query("sum(signalbox_ingest_smtp_connections)", "SMTP"),
                    ),
                    "stacked",
                    8,
                ),
            ),
        ),
    ),
)

ALL: Final = (OVERVIEW, ROUTING, SLA, CHANNELS, LEDGER, GOLDEN)
"""All dashboards, in the order in which docs/dashboards.md shows them."""
