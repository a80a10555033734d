"""Messenger, Page comments, Instagram and WhatsApp: what the recorded pairs cannot say by themselves."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.adapters import facebook_page, instagram, messenger, meta, whatsapp
from services.ingest.adapters.channel import ChannelSettings, Delivery, Parsed, ParseError

AT = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
PAGE = "1029384756"
CHANNELS = [messenger, facebook_page, instagram, whatsapp]


def delivered(
    module: ModuleType, body: object, of: ChannelSettings | None = None, **more: Any
) -> Delivery:
    name: str = module.CHANNEL.name
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(
        channel=name,
        account=f"lantern_{name}",
        body=raw,
        received_at=AT,
        settings=of or module.Settings(),
        **more,
    )


def read(
    module: ModuleType, body: object, of: ChannelSettings | None = None, **more: Any
) -> Parsed:
    parsed: Parsed = module.parse(delivered(module, body, of, **more))
    return parsed


def page(*events: dict[str, Any], entry: str = PAGE, **more: Any) -> dict[str, Any]:
    return {"object": "page", "entry": [{"id": entry, "messaging": list(events), **more}]}


def said(
    mid: str = "m_1", sender: str = "77", recipient: str = PAGE, **more: Any
) -> dict[str, Any]:
    return {
        "sender": {"id": sender},
        "recipient": {"id": recipient},
        "timestamp": 1767225599870,
        "message": {"mid": mid, "text": "Hello", **more},
    }


def comment(**more: Any) -> dict[str, Any]:
    value = {
        "item": "comment",
        "verb": "add",
        "comment_id": "1_2_3",
        "post_id": "1_2",
        "parent_id": "1_2",
        "from": {"id": "77", "name": "Lena F."},
        "message": "In stock?",
        "created_time": 1767225598,
        **more,
    }
    return {
        "object": "page",
        "entry": [{"id": PAGE, "changes": [{"field": "feed", "value": value}]}],
    }


def number(*messages: dict[str, Any], number_id: str = "99", **more: Any) -> dict[str, Any]:
    value = {
        "metadata": {"display_phone_number": "+1 555-010-0200", "phone_number_id": number_id},
        "messages": list(messages),
        **more,
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "33", "changes": [{"field": "messages", "value": value}]}],
    }


def text(name: str = "wamid.1", **more: Any) -> dict[str, Any]:
    return {
        "from": "15550107788",
        "id": name,
        "timestamp": "1767225600",
        "type": "text",
        "text": {"body": "Hello"},
        **more,
    }


# ------------------------------------------------------------------------------------------- accounts


def test_entries_for_another_page_are_left_out_and_the_rest_is_taken() -> None:
    body = page(said("m_theirs"), entry="555")
    body["entry"] += page(said("m_ours"))["entry"]
    parsed = read(messenger, body, messenger.Settings(page_id=PAGE))
    assert [message.vendor_message_id for message in parsed.messages] == ["m_ours"]
    alone = read(messenger, page(said(), entry="555"), messenger.Settings(page_id=PAGE))
    assert (alone.messages, alone.ignored) == ((), "other_account")


def test_what_is_for_another_number_is_left_out() -> None:
    ours = whatsapp.Settings(phone_number_id="99")
    assert read(whatsapp, number(text()), ours).messages
    assert read(whatsapp, number(text(), number_id="98"), ours).ignored == "other_account"
    unnamed = number(text())
    del unnamed["entry"][0]["changes"][0]["value"]["metadata"]
    assert read(whatsapp, unnamed, ours).ignored == "other_account"


def test_a_thousand_updates_of_one_callback_are_a_thousand_messages_in_order() -> None:
    names = [f"m_{index}" for index in range(1000)]
    parsed = read(messenger, page(*(said(name) for name in names)))
    assert [message.vendor_message_id for message in parsed.messages] == names


def test_callbacks_in_a_list_are_all_read() -> None:
    parsed = read(
        messenger, [page(said("m_1")), {"object": "user", "entry": []}, page(said("m_2"))]
    )
    assert [message.vendor_message_id for message in parsed.messages] == ["m_1", "m_2"]


def test_a_message_is_as_verified_as_its_delivery() -> None:
    assert read(messenger, page(said()), verified=True).verified
    assert not read(messenger, page(said())).verified


# -------------------------------------------------------------------------------------------- echoes


@pytest.mark.parametrize(
    ("of", "echo", "is_ours"),
    [
        (messenger.Settings(app_id="111"), {"app_id": 111}, True),
        (messenger.Settings(app_id="111"), {"app_id": "111"}, True),
        (messenger.Settings(app_id="111"), {"app_id": 222}, False),
        (messenger.Settings(app_id="111", own_ids=("222",)), {"app_id": 222}, True),
        (messenger.Settings(app_id="111"), {"app_id": 222, "metadata": "signalbox:7"}, True),
        (
            messenger.Settings(app_id="111", metadata_prefix=""),
            {"app_id": 222, "metadata": "x"},
            False,
        ),
        (messenger.Settings(), {}, False),
        (messenger.Settings(), {"app_id": 263902037430900}, False),
        (messenger.Settings(), {"app_id": 222}, True),
    ],
)
def test_an_echo_is_our_own_reply_or_what_a_person_wrote_in_the_inbox(
    of: messenger.Settings, echo: dict[str, Any], is_ours: bool
) -> None:
    parsed = read(messenger, page(said(sender=PAGE, recipient="77", is_echo=True, **echo)), of)
    if is_ours:
        assert (parsed.messages, parsed.ignored) == ((), "echo")
    else:
        (message,) = parsed.messages
        assert (message.direction, message.sender.address) == ("outbound", PAGE)
        assert message.recipients == ("77",)


def test_what_a_page_of_ours_writes_is_never_a_customers_even_without_the_echo_mark() -> None:
    (message,) = read(messenger, page(said(sender=PAGE, recipient="77"))).messages
    assert message.direction == "outbound"


def test_an_unsent_message_keeps_its_name_and_writer_and_loses_its_words() -> None:
    body = page(said("m_1", is_deleted=True))
    body["object"] = "instagram"
    (message,) = read(instagram, body).messages
    assert (message.change, message.vendor_message_id) == ("deleted", "m_1")
    assert (message.sender.address, message.text) == ("77", "")


def test_a_message_in_a_conversation_of_another_app_is_taken_and_marked_or_left_out() -> None:
    body = {"object": "page", "entry": [{"id": PAGE, "standby": [said()]}]}
    (message,) = read(messenger, body).messages
    assert message.fields == {"standby": "true"}
    left = read(messenger, body, messenger.Settings(standby="ignore"))
    assert (left.messages, left.ignored) == ((), "standby")


def test_an_edit_whose_new_text_is_not_told_changes_nothing() -> None:
    event = {"sender": {"id": "77"}, "recipient": {"id": PAGE}, "message_edit": {"mid": "m_1"}}
    assert read(messenger, page(event)).ignored == "hint"


def test_a_button_pressed_by_somebody_without_an_id_is_still_a_message() -> None:
    event = {
        "sender": {"user_ref": "ref-1"},
        "recipient": {"id": PAGE},
        "timestamp": "1527459824",
        "postback": {"mid": "m_1", "title": "Talk to us"},
    }
    (message,) = read(messenger, page(event)).messages
    assert (message.sender.kind, message.text) == ("none", "Talk to us")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"delivery": {"watermark": 1}}, "receipt"),
        ({"read": {"watermark": 1}}, "receipt"),
        ({"reaction": {"emoji": "x"}}, "reaction"),
        ({"optin": {}}, "optin"),
        ({"referral": {"ref": "x"}}, "referral"),
        ({"pass_thread_control": {}}, "handover"),
        ({"take_thread_control": {}}, "handover"),
        ({"something_new": {}}, "unknown_event"),
    ],
)
def test_what_is_no_message_is_left_out_by_its_name(event: dict[str, Any], reason: str) -> None:
    assert read(messenger, page(event)).ignored == reason


# ------------------------------------------------------------------------------------------ comments


def test_comments_in_messengers_callback_go_to_the_account_that_is_named_for_them() -> None:
    body = comment()
    body["entry"] += page(said())["entry"]
    both = read(messenger, body, messenger.Settings(comments_account="lantern_page"))
    assert [(m.channel, m.account, m.kind) for m in both.messages] == [
        ("facebook_page", "lantern_page", "comment"),
        ("messenger", "lantern_messenger", "message"),
    ]
    (alone,) = read(messenger, body).messages
    assert alone.channel == "messenger"


def test_messages_in_the_comments_callback_are_another_channels() -> None:
    assert read(facebook_page, page(said())).ignored == "other_channel"


def test_a_comment_and_its_answers_are_one_thread() -> None:
    (top,) = read(facebook_page, comment()).messages
    (below,) = read(facebook_page, comment(comment_id="1_2_4", parent_id="1_2_3")).messages
    assert top.thread == below.thread == "1_2_3"
    assert (top.in_reply_to, below.in_reply_to) == (None, "1_2_3")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"verb": "hide"}, "not_a_message"),
        ({"verb": "unhide"}, "not_a_message"),
        ({"verb": "mute"}, "unknown_event"),
        ({"item": "reaction"}, "reaction"),
        ({"item": "album"}, "unknown_event"),
        ({"from": {"id": PAGE}}, "echo"),
        ({"from": {"id": "4242"}}, "echo"),
    ],
)
def test_what_happens_on_a_page_and_says_nothing_is_left_out(
    more: dict[str, Any], reason: str
) -> None:
    of = facebook_page.Settings(own_ids=("4242",))
    assert read(facebook_page, comment(**more), of).ignored == reason


# ------------------------------------------------------------------------------------------ WhatsApp


def test_a_person_is_their_number_and_without_it_their_user_id() -> None:
    known = [{"profile": {"name": "Ada"}, "wa_id": "15550107788", "user_id": "US.1"}]
    (by_number,) = read(whatsapp, number(text(), contacts=known)).messages
    assert (by_number.sender.kind, by_number.sender.address) == ("phone", "+15550107788")
    assert by_number.fields["user_id"] == "US.1"
    hidden = {**text(), "from_user_id": "US.1"}
    del hidden["from"]
    people = [{"user_id": "US.2"}, {"profile": {"name": "Ada"}, "user_id": "US.1"}]
    (by_id,) = read(whatsapp, number(hidden, contacts=people)).messages
    assert (by_id.sender.kind, by_id.sender.address, by_id.sender.name) == (
        "vendor_id",
        "US.1",
        "Ada",
    )


def test_names_are_found_among_several_people_of_one_callback() -> None:
    people = [
        {"profile": {"name": "Ada"}, "wa_id": "15550107788"},
        {"profile": {"name": "Kari"}, "wa_id": "4740000000"},
    ]
    body = number(text("wamid.1"), text("wamid.2", **{"from": "4740000000"}), contacts=people)
    assert [message.sender.name for message in read(whatsapp, body).messages] == ["Ada", "Kari"]


def test_our_own_number_is_no_customer() -> None:
    assert read(whatsapp, number(text(**{"from": "15550100200"}))).ignored == "echo"


def test_statuses_beside_a_message_do_not_hide_it() -> None:
    body = number(text(), statuses=[{"id": "wamid.0", "status": "failed"}])
    assert len(read(whatsapp, body).messages) == 1


def test_both_sides_of_a_chat_name_the_customer_in_the_same_way() -> None:
    echo = {"id": "wamid.9", "type": "text", "text": {"body": "Hi"}, "from": "15550100200"}
    for to, kind, address in (
        ({"to": "15550107788"}, "phone", "+15550107788"),
        ({"to_user_id": "US.1"}, "vendor_id", "US.1"),
    ):
        body = number(message_echoes=[{**echo, **to}])
        body["entry"][0]["changes"][0]["field"] = "smb_message_echoes"
        (message,) = read(whatsapp, body).messages
        assert (message.direction, message.sender.kind) == ("outbound", kind)
        assert message.recipients == (address,)


def test_a_forms_token_is_not_kept() -> None:
    flow = {"name": "flow", "body": "Sent", "response_json": '{"flow_token":"s3cret","order":"7"}'}
    answer = text(type="interactive", interactive={"type": "nfm_reply", "nfm_reply": flow})
    (message,) = read(whatsapp, number(answer)).messages
    assert "s3cret" not in message.model_dump_json()
    assert message.text == "Sent\norder: 7"


@pytest.mark.parametrize("written", ["", "[1]", "{", "[" * 50, '{"a": {"b": 1}}'])
def test_a_forms_answers_that_cannot_be_read_leave_what_the_person_sees(written: str) -> None:
    flow = {"body": "Sent", "response_json": written}
    answer = text(type="interactive", interactive={"nfm_reply": flow})
    (message,) = read(whatsapp, number(answer)).messages
    assert message.text == "Sent"


# ------------------------------------------------------------------------------------ wrong and hostile


@pytest.mark.parametrize("module", CHANNELS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]x",
        b"{}",
        b'{"object":"page"}',
        b'{"object":7,"entry":[]}',
        b'{"object":"page","entry":{}}',
        b"\xff\xfe",
        b"[" * 100,
    ],
)
def test_what_is_no_callback_is_refused_and_nothing_of_it_is_said(
    module: ModuleType, body: bytes
) -> None:
    with pytest.raises(ParseError):
        read(module, body)


@pytest.mark.parametrize(
    ("module", "body", "field"),
    [
        (messenger, page(said(mid="")), "message.mid"),
        (messenger, page(said(mid="m" * 201)), "message.mid"),
        (messenger, page({**said(), "sender": None}), "sender.id"),
        (facebook_page, comment(comment_id=None), "value.comment_id"),
        (facebook_page, comment(message={"SECRET": 1}), "value.message"),
        (whatsapp, number(text(id=None)), "messages.id"),
        (whatsapp, number({**text(), "type": "revoke"}), "messages.id"),
    ],
)
def test_a_message_without_what_it_needs_is_refused_by_the_fields_name(
    module: ModuleType, body: object, field: str
) -> None:
    with pytest.raises(ParseError) as refused:
        read(module, body)
    assert refused.value.field == field
    assert "SECRET" not in str(refused.value)


def test_an_update_that_cannot_be_read_does_not_cost_the_others() -> None:
    wrong: list[Any] = [said(mid=""), "no event", {"sender": 7}, {"message": {"mid": []}}]
    parsed = read(messenger, page(said("m_1"), *wrong, said("m_2")))
    assert [message.vendor_message_id for message in parsed.messages] == ["m_1", "m_2"]
    body = number(text("wamid.1"), text(id=None), text("wamid.2"))
    assert len(read(whatsapp, body).messages) == 2


def test_a_whatsapp_message_of_an_unknown_shape_is_seen_as_something_said() -> None:
    odd = {**text(), "type": "location", "location": {"latitude": "north"}}
    body = number(
        odd, contacts=[{"profile": 7}, {"profile": {"name": "Ada"}, "wa_id": "15550107788"}]
    )
    (message,) = read(whatsapp, body).messages
    assert message.fields == {"unsupported": "location"}
    assert (message.sender.name, message.sender.address) == ("Ada", "+15550107788")


def test_an_empty_callback_is_no_mistake() -> None:
    assert read(messenger, {"object": "page", "entry": []}).ignored == "empty"


KEYS = sorted(
    {
        name
        for kind in (
            meta.Entry, meta.Event, meta.Direct, meta.Attached, meta.Postback, meta.Edited,
            facebook_page.Feed, instagram.Comment, whatsapp.Value, whatsapp.Message,
            whatsapp.Interactive, whatsapp.Flow,
        )
        for name in kind.__struct_encode_fields__
    }
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["comments", "feed", "messages", "mentions", "text", "interactive", "edit", "comment", "add", PAGE, "0"]
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(
    module=st.sampled_from(CHANNELS),
    entries=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), max_size=3),
)
def test_whatever_a_callback_holds_it_is_read_or_refused(
    module: ModuleType, entries: list[Any]
) -> None:
    body = {"object": module.OBJECT, "entry": entries}
    try:
        parsed = read(module, body)
    except ParseError:
        return
    assert bool(parsed.messages) != (parsed.ignored is not None)


@settings(max_examples=200, deadline=None)
@given(
    value=VALUES,
    field=st.sampled_from(["feed", "mention", "comments", "messages", "smb_message_echoes"]),
)
def test_whatever_a_change_holds_it_is_read_or_refused(value: Any, field: str) -> None:
    for module in CHANNELS:
        entry = {"id": PAGE, "changes": [{"field": field, "value": value}]}
        try:
            read(module, {"object": module.OBJECT, "entry": [entry]})
        except ParseError:
            continue


def test_settings_of_another_channel_are_not_mistaken_for_ours() -> None:
    body = delivered(messenger, page(said(), entry="555"))
    parsed = messenger.parse(replace(body, settings=whatsapp.Settings(phone_number_id="99")))
    assert len(parsed.messages) == 1
