"""Where a customer hears from us, as `signalbox customer consent` finds it."""

from typing import Any

import pytest

from cli.customer_consent import Place, places


def row(kind: str, address: str, account: str | None = "support", **more: Any) -> dict[str, Any]:
    given = {"channel": "email" if account else None, "conversation_id": "c-1", **more}
    return {"kind": kind, "address": address, "account": account, **given}


def test_one_address_is_one_place_whatever_its_spelling_and_the_account_it_came_by() -> None:
    rows = [
        row("email", "Ada@Example.com"),
        row("email", "ada@example.com", "contact", conversation_id="c-2"),
        row("phone", "+905321234567", "shop-sms", channel="twilio_sms"),
        row("phone", "+905321234567", "shop-whatsapp", channel="whatsapp"),
    ]
    assert places(rows) == [
        Place("Ada@example.com", "Ada@example.com", "c-1"),
        Place("+905321234567", "+905321234567", "c-1"),
    ]


def test_in_a_chat_the_account_is_part_of_the_place() -> None:
    rows = [row("vendor_id", "55501", name, channel="telegram") for name in ("shop", "other")]
    assert [place.recipient for place in places(rows)] == ["shop:55501", "other:55501"]
    assert places(rows)[0].shown == "telegram 55501 (account shop)"


@pytest.mark.parametrize(
    "given",
    [
        row("email", "ada at example.com"),
        row("phone", "5321234567"),
        row("vendor_id", "55501", None),
    ],
)
def test_what_no_notice_could_go_to_is_no_place(given: dict[str, Any]) -> None:
    assert places([given]) == []
