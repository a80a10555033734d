"""What the doctor finds in settings, each side of each edge, and that each finding has a cure."""

from pathlib import Path

import pytest

from chassis.policy import load
from cli.doctor import Finding, check_broker, check_database, check_topic, check_way_out
from cli.ledger import describe
from services.notifier.handlers import POLICY

GOOD_DATABASE = {
    "server_version_num": "180000",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
}
WEEK = 7 * 86_400.0


def levels(findings: list[Finding]) -> list[str]:
    assert all(finding.what and finding.cure for finding in findings)
    return [finding.level for finding in findings]


def test_mails_without_a_way_out_are_told_with_the_setting_that_gives_them_one() -> None:
    policy = load(Path(__file__).parents[3] / "policy", POLICY)
    assert levels(check_way_out(policy, "")) == ["warning"]
    (finding,) = check_way_out(policy, "http://localhost:8080")
    assert "SIGNALBOX_PUBLIC_URL" in finding.what
    assert "outage_known" in finding.what
    assert check_way_out(policy, "https://in.example.com") == []


def test_a_sound_database_is_not_blamed() -> None:
    assert check_database(GOOD_DATABASE, 0.0) == []


@pytest.mark.parametrize(
    ("changes", "skew", "found"),
    [
        ({"server_version_num": "160009"}, 0.0, ["error"]),
        ({"server_version_num": "170000"}, 0.0, []),
        ({"fsync": "off"}, 0.0, ["error"]),
        ({"full_page_writes": "off"}, 0.0, ["error"]),
        ({"synchronous_commit": "off"}, 0.0, ["error"]),
        ({"synchronous_commit": "local"}, 0.0, ["warning"]),
        ({"synchronous_commit": "remote_apply"}, 0.0, []),
        ({"max_connections": "39"}, 0.0, ["warning"]),
        ({}, 0.6, ["warning"]),
        ({}, -0.6, ["warning"]),
        ({}, 0.5, []),
    ],
)
def test_unsafe_settings_of_the_database_are_found(
    changes: dict[str, str], skew: float, found: list[str]
) -> None:
    assert levels(check_database({**GOOD_DATABASE, **changes}, skew)) == found


@pytest.mark.parametrize(
    ("config", "session", "found"),
    [
        ({}, 6.0, []),
        ({"auto.create.topics.enable": "true"}, 6.0, ["warning"]),
        ({"unclean.leader.election.enable": "true"}, 6.0, ["error"]),
        ({"group.min.session.timeout.ms": "6000"}, 6.0, []),
        ({"group.min.session.timeout.ms": "6001"}, 6.0, ["error"]),
        ({"message.max.bytes": "1048588"}, 6.0, []),
        ({"message.max.bytes": "1000000"}, 6.0, ["error"]),
    ],
)
def test_unsafe_settings_of_a_broker_are_found(
    config: dict[str, str], session: float, found: list[str]
) -> None:
    assert levels(check_broker(config, session)) == found


@pytest.mark.parametrize(
    ("config", "copies", "brokers", "found"),
    [
        ({}, 1, 1, []),
        ({}, 1, 3, ["error"]),
        ({"min.insync.replicas": "1"}, 3, 3, ["warning"]),
        ({"min.insync.replicas": "2"}, 3, 3, []),
        ({"min.insync.replicas": "2"}, 1, 1, ["error"]),
        ({"retention.ms": str(7 * 86_400_000)}, 1, 1, []),
        ({"retention.ms": str(6 * 86_400_000)}, 1, 1, ["warning"]),
        ({"retention.ms": "-1"}, 1, 1, []),
        ({"cleanup.policy": "compact"}, 1, 1, ["error"]),
    ],
)
def test_unsafe_settings_of_a_topic_are_found(
    config: dict[str, str], copies: int, brokers: int, found: list[str]
) -> None:
    assert levels(check_topic("tickets", config, copies, brokers, WEEK)) == found


@pytest.mark.parametrize(
    ("halted", "said"),
    [
        (
            {
                "reason": "sequence_gap",
                "topic": "tickets",
                "source": "signalbox/router.tickets/1",
                "last": 7,
                "got": 9,
                "offset": 12,
            },
            "number 8 never came",
        ),
        (
            {
                "reason": "sequence_gap",
                "topic": "tickets",
                "source": "s",
                "last": 7,
                "got": 12,
                "offset": 12,
            },
            "numbers 8 to 11 never came",
        ),
        (
            {
                "reason": "below_log_start",
                "topic": "sla",
                "source": None,
                "last": 3,
                "got": None,
                "offset": 9,
            },
            "deleted unread",
        ),
        (
            {
                "reason": "beyond_log_end",
                "topic": "sla",
                "source": None,
                "last": 9,
                "got": None,
                "offset": 3,
            },
            "lost its end",
        ),
    ],
)
def test_why_a_task_stands_is_said_in_words(halted: dict[str, object], said: str) -> None:
    assert said in describe(halted)
