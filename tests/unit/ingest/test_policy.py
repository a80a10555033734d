"""`channels.yaml`: the example is good, and each mistake is named with its path."""

import os
from pathlib import Path

import pytest

from chassis import policy
from chassis.errors import PolicyError
from services.ingest.adapters.secrets import Secrets
from services.ingest.handlers import POLICY

EXAMPLE = Path(__file__).resolve().parents[3] / "policy"


def load(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    (tmp_path / "channels.yaml").write_text(text, encoding="utf-8")
    return policy.load(tmp_path, POLICY)


def test_the_example_is_good_and_knows_its_addresses() -> None:
    channels = policy.load(EXAMPLE, POLICY)
    assert channels.account_of("Support@Lantern-Oak.example") == "support"
    assert channels.account_of("help+sb.token@lantern-oak.example") == "support"
    assert channels.account_of("ceo@lantern-oak.example") is None
    assert channels.own_addresses == {"support@lantern-oak.example", "help@lantern-oak.example"}
    assert channels.trusted_servers("support") == {
        "mx1.lantern-oak.example",
        "mx2.lantern-oak.example",
    }
    assert set(channels.file.forms) == {"contact"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            "mail: {a: {addresses: [x@y.example]}, b: {addresses: [X@y.example]}}",
            "mail.b.addresses.0",
        ),
        ("mail: {a: {addresses: [x@y.example, x@y.example]}}", "mail.a.addresses.1"),
        ("mail: {a: {addresses: []}}", "mail.a.addresses"),
        ("mail: {a: {addresses: [not-one]}}", "mail.a.addresses.0"),
        (
            "mail: {a: {addresses: [x@y.example], imap: {host: h, user: u, password: hunter2}}}",
            "mail.a.imap.password",
        ),
        ("mail: {A: {addresses: [x@y.example]}}", "mail.A.[key]"),
        ("messages: {a: {channel: email}}", "messages.a.channel"),
        ("forms: {contact: {origin: []}}", "forms.contact.origin"),
        ("api_keys: [{name: a, secret: 'env:A', scopes: [root]}]", "api_keys.0.scopes.0"),
        (
            "api_keys: [{name: a, secret: 'env:A', scopes: [agents]}, {name: a, secret: 'env:B', scopes: [agents]}]",
            "api_keys.1.name",
        ),
        (
            "{scim: {main: {}}, api_keys: [{name: a, secret: 'env:A', scopes: [scim], domains: [mian]}]}",
            "api_keys.0.domains.0",
        ),
        (
            "{scim: {main: {}}, api_keys: [{name: a, secret: 'env:A', scopes: [scim, roster], domains: [main]}]}",
            "api_keys.0.domains",
        ),
        ("events: {a: {secrets: []}}", "events.a.secrets"),
        ("automatic: {messages_max: 0}", "automatic.messages_max"),
    ],
)
def test_a_mistake_is_named_with_its_path(tmp_path: Path, text: str, path: str) -> None:
    with pytest.raises(PolicyError) as refused:
        load(tmp_path, text)
    assert (refused.value.file, refused.value.path) == ("channels.yaml", path)


def test_an_empty_file_is_a_gateway_with_nothing_open(tmp_path: Path) -> None:
    channels = load(tmp_path, "")
    assert channels.own_addresses == frozenset()
    assert channels.file.domain == "main"


def test_a_secret_in_a_file_rotates_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Secrets()
    path = tmp_path / "key"
    assert secrets.get(f"file:{path}") is None
    path.write_text("one\n")
    assert secrets.get(f"file:{path}") == b"one"
    path.write_text("two\n")
    os.utime(path, ns=(1, 1))
    assert secrets.get(f"file:{path}") == b"two"
    monkeypatch.setenv("SIGNALBOX_TEST_KEY", "three")
    assert secrets.get("env:SIGNALBOX_TEST_KEY") == b"three"
    assert secrets.missing(["env:SIGNALBOX_TEST_KEY", "env:SIGNALBOX_NO_SUCH", f"file:{path}"]) == [
        "env:SIGNALBOX_NO_SUCH"
    ]
