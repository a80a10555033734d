"""Articles in the acknowledgement: asked for as the ticket opens, named if they come in time, and never instead of anything."""

from typing import Any

from schemas.messages import MessageReceived
from schemas.tickets import ConversationErased
from services.notifier.core.articles import ArticlesFound, Search, Suggestion
from tests.unit.notifier.conftest import CONVERSATION, Story, at

ORDER = Suggestion("Where is my order?", "https://help.example/order", "The link shows it.", 0.8)
MESSAGE = "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10"


def message(text: str = "Where is order 1001?", **changes: Any) -> MessageReceived:
    example = MessageReceived.EXAMPLE
    content = {**example["content"], "text": text, "text_new": text, **changes}
    return MessageReceived.model_validate({**example, "content": content})


def asked(story: Story) -> list[Search]:
    return list(story.last.searches)


def found(story: Story, clock: str, *articles: Suggestion) -> Story:
    return story.when(ArticlesFound(story.searched, articles), clock)


def opened(story: Story, clock: str = "08:00", **changes: Any) -> Story:
    story.opened(clock, **{"message_id": MESSAGE, **changes})
    for search in story.last.searches:
        story.searched = search.notice_id
    return story


def test_what_the_message_asks_is_looked_for_as_its_ticket_opens(reader: Story) -> None:
    reader.when(message("Where is order 1001? ada@example.com"), "07:59")
    opened(reader).then()

    (search,) = asked(reader)
    assert (search.question, search.language) == ("My lamp never arrived Where is order ?", "en")
    assert reader.state.asking == {}


def test_a_ticket_whose_message_has_not_been_heard_of_asks_by_its_subject(reader: Story) -> None:
    opened(reader, subject="My lamp is dark")

    assert asked(reader)[0].question == "My lamp is dark"


def test_the_acknowledgement_names_what_was_found_and_what_can_be_promised(reader: Story) -> None:
    opened(reader).promised("08:00:01", **_within_twenty_minutes()).then()
    found(reader, "08:00:02", ORDER).then(("received", "requested"))

    assert "https://help.example/order" in reader.mail.text
    assert "within 20 minutes" in reader.mail.text
    assert "A person" in reader.mail.text


def test_articles_wait_for_the_promise_as_it_waits_for_them(reader: Story) -> None:
    opened(reader)
    found(reader, "08:00:01", ORDER).then()
    reader.promised("08:00:02", **_within_twenty_minutes()).then(("received", "requested"))

    assert "https://help.example/order" in reader.mail.text
    assert "within 20 minutes" in reader.mail.text


def test_nobody_waits_for_articles_longer_than_for_the_promise(reader: Story) -> None:
    opened(reader).promised("08:00:01", **_within_twenty_minutes()).then()
    reader.waited("08:00:05").then(("received", "requested"))
    assert "within 20 minutes" in reader.mail.text

    found(reader, "08:00:06", ORDER).then()
    assert reader.last.ignored == "articles_late"
    assert len(reader.sends) == 1


def test_where_nothing_is_sure_the_acknowledgement_goes_without(reader: Story) -> None:
    opened(reader).promised("08:00:01", **_within_twenty_minutes())
    found(reader, "08:00:01").then(("received", "requested"))

    assert "already help" not in reader.mail.text


def test_a_language_without_a_floor_is_asked_nothing(reader: Story) -> None:
    opened(reader, contact={"language": "tr"})

    assert asked(reader) == []


def test_what_machines_and_our_own_people_write_is_not_asked(reader: Story) -> None:
    reader.when(message(is_automatic=True), "07:59")
    reader.when(message(direction="outbound"), "07:59")
    reader.when(message(kind="auto_reply"), "07:59")

    assert reader.state.asking == {}


def test_what_a_customer_asked_is_forgotten_with_them(reader: Story) -> None:
    reader.when(message(), "07:59")
    assert reader.state.asking

    erased = ConversationErased(conversation_id=CONVERSATION, by="ops", at=at("08:00"))
    reader.when(erased, "08:00")

    assert reader.state.asking == {}


def test_without_articles_in_the_policy_no_message_is_kept(story: Story) -> None:
    story.when(message(), "07:59")

    assert story.state.asking == {}
    assert opened(story).last.searches == ()


def _within_twenty_minutes() -> dict[str, Any]:
    return {
        "by": at("08:20"),
        "seconds": 1200.0,
        "wording": {"kind": "within", "minutes": 20, "day": "today", "time": "08:20"},
        "kept_share": 0.93,
    }
