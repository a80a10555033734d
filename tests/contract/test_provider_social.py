"""Social networks, reviews and forums as providers: what is theirs alone, and that nothing of ours comes back as news.

What all providers have to show stands in `test_providers.py`.
"""

import base64
import json
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from starlette.responses import JSONResponse, Response

from services.ingest.adapters import api as ingest_api
from services.ingest.adapters import discourse as discourse_channel
from services.ingest.adapters import facebook_page as page_channel
from services.ingest.adapters import google_reviews as google_channel
from services.ingest.adapters import instagram as instagram_channel
from services.ingest.adapters import messenger as messenger_channel
from services.ingest.adapters import trustpilot as trustpilot_channel
from services.ingest.adapters import whatsapp as whatsapp_channel
from services.ingest.adapters import x as x_channel
from services.ingest.adapters.channel import FETCHED, Channel, ChannelSettings, Delivery, Parsed
from services.notifier.adapters import (
    PROVIDERS,
    discourse,
    facebook_page,
    google_reviews,
    graph,
    instagram,
    oauth1,
    provider,
    trustpilot,
    whatsapp,
    x,
    yelp,
)
from services.notifier.adapters.api import AccountApi
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Post, Trouble, VendorTemplate
from tests.contract.providers import (
    ProviderCase,
    a_post,
)
from tests.contract.providers.discourse import CASE as DISCOURSE
from tests.contract.providers.facebook_page import CASE as PAGE
from tests.contract.providers.google_reviews import CASE as GOOGLE
from tests.contract.providers.google_reviews import PLACES
from tests.contract.providers.hootsuite import CASE as HOOTSUITE
from tests.contract.providers.instagram import CASE as INSTAGRAM
from tests.contract.providers.messenger import CASE as MESSENGER
from tests.contract.providers.trustpilot import CASE as TRUSTPILOT
from tests.contract.providers.trustpilot import REVIEW as TRUSTPILOT_REVIEW
from tests.contract.providers.whatsapp import CASE as WHATSAPP
from tests.contract.providers.x import CASE as X
from tests.contract.providers.yelp import CASE as YELP
from tests.contract.providers.yelp import REVIEW as YELP_REVIEW
from tests.fakes import desk
from tests.fakes.yelp import YelpPartner

NOW = datetime(2026, 11, 24, 8, 0, 30, tzinfo=UTC)
COMMENT = "17900000000000001"


def api_of(
    case: ProviderCase, fake: Any, settings: AccountSettings | None = None, **secrets: str
) -> AccountApi:
    known = {**case.secrets, **{f"env:{name}": value for name, value in secrets.items()}}
    client = desk.client(fake.server())
    return AccountApi(settings or case.settings, client, lambda name: known.get(name))


async def send(
    case: ProviderCase,
    fake: Any,
    post: Post | None = None,
    settings: AccountSettings | None = None,
) -> Attempted:
    return await api_of(case, fake, settings).send(case.provider, post or case.post)


def but(case: ProviderCase, **changes: Any) -> Post:
    """Return a case's post with changes."""
    changed: Post = structs.replace(case.post, **changes)
    return changed


def refused(outcome: Attempted, trouble: Trouble) -> str:
    """Return why a send was refused for good."""
    assert isinstance(outcome, Failed), outcome
    assert (outcome.trouble, outcome.is_recoverable) == (trouble, False)
    return outcome.reason


def heard(
    channel: Channel,
    body: Any,
    settings: ChannelSettings,
    headers: dict[str, str] | None = None,
) -> Parsed:
    """Return what the channel makes of a vendor's callback."""
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    return channel.parse(
        Delivery(
            channel.name, "shop", said, NOW, settings=settings, headers=headers or {}, verified=True
        )
    )


# ------------------------------------------------------------------------------------- in public


IN_PUBLIC = [PAGE, GOOGLE, TRUSTPILOT, YELP, DISCOURSE]


def comment_post(**changes: Any) -> Post:
    """Return an answer to a comment on Instagram."""
    given: dict[str, Any] = {
        "to": "6543210", "thread": COMMENT, "answers": COMMENT, "subject": "",
    }  # fmt: skip
    return a_post(instagram.PROVIDER, **given | changes)


def answer_to_post(**changes: Any) -> Post:
    """Return an answer to a post on X."""
    given: dict[str, Any] = {"to": "2222", "thread": "500", "answers": "501", "subject": ""}
    return a_post(x.PROVIDER, **given | changes)


def commented() -> Any:
    fake = INSTAGRAM.fake()
    fake.comments[COMMENT] = []
    return fake


def mentioned() -> Any:
    fake = X.fake()
    fake.posts, fake.mentions = {"501", "502"}, {"501"}
    return fake


@pytest.mark.parametrize("case", IN_PUBLIC, ids=lambda case: case.name)
async def test_words_that_were_made_for_one_person_are_never_shown_to_everybody(
    case: ProviderCase,
) -> None:
    assert case.provider.traits.is_public
    fake = case.fake()
    reason = refused(await send(case, fake, but(case, subject="Your lamp")), Trouble.MESSAGE)
    assert "everybody" in reason
    assert (fake.sent, fake.tried) == ([], 0)


@pytest.mark.parametrize("occasion", ["security", "survey", "need_info", "delayed", "recovery"])
@pytest.mark.parametrize("case", IN_PUBLIC, ids=lambda case: case.name)
async def test_an_occasion_that_has_no_words_for_the_public_is_not_told_there(
    case: ProviderCase, occasion: str
) -> None:
    fake = case.fake()
    outcome = await send(case, fake, but(case, occasion=occasion, is_automatic=True))
    assert occasion in refused(outcome, Trouble.MESSAGE)
    assert fake.tried == 0


async def test_private_words_never_stand_under_a_comment_or_a_post_by_mistake() -> None:
    """Instagram and X have private and public places in one account."""
    on_instagram, on_x = commented(), mentioned()
    refused(await send(INSTAGRAM, on_instagram, comment_post(subject="Your lamp")), Trouble.MESSAGE)
    refused(await send(X, on_x, answer_to_post(subject="Your lamp")), Trouble.MESSAGE)
    assert (on_instagram.sent, on_x.sent) == ([], [])


@pytest.mark.parametrize("case", [GOOGLE, TRUSTPILOT, YELP], ids=lambda case: case.name)
async def test_the_one_answer_to_a_review_is_left_to_a_person_unless_told_otherwise(
    case: ProviderCase,
) -> None:
    received = but(case, occasion="received", is_automatic=True)
    fake = case.fake()
    assert "automatic" in refused(await send(case, fake, received), Trouble.MESSAGE)
    allowed = case.settings.model_copy(update={"automatic": True})
    assert isinstance(await send(case, fake, received, allowed), Delivered)


@pytest.mark.parametrize("case", [GOOGLE, TRUSTPILOT], ids=lambda case: case.name)
async def test_a_reply_that_stands_under_a_review_is_not_written_over(case: ProviderCase) -> None:
    fake = case.fake()
    (review,) = fake.reviews.values()
    reply = {"comment": "We are sorry!", "text": "We are sorry!"}
    review |= {"reviewReply": reply, "companyReply": reply}
    assert "reply" in refused(await send(case, fake), Trouble.MESSAGE)
    assert fake.tried == 0
    mine = {"comment": f" {case.post.text}\n", "text": f" {case.post.text}\n"}
    review |= {"reviewReply": mine, "companyReply": mine}
    assert isinstance(await send(case, fake), Delivered)
    assert fake.tried == 0, "it stands there already"


async def test_a_review_in_none_of_the_places_cannot_be_answered() -> None:
    outcome = await send(GOOGLE, GOOGLE.fake(), but(GOOGLE, thread="Zz9"))
    assert "none of the places" in refused(outcome, Trouble.WINDOW)


async def test_a_place_that_is_not_verified_takes_no_reply() -> None:
    fake = GOOGLE.fake()
    fake.unverified.add(PLACES[1])
    refused(await send(GOOGLE, fake), Trouble.MESSAGE)


async def test_a_product_review_is_answered_at_trustpilot_and_that_is_said() -> None:
    outcome = await send(TRUSTPILOT, TRUSTPILOT.fake(), but(TRUSTPILOT, thread="product-1"))
    assert "product review" in refused(outcome, Trouble.WINDOW)


async def test_emoji_are_left_out_for_yelp_and_words_are_not() -> None:
    fake = YELP.fake()
    text = "Thank you, Ada! \U0001f64f\U0001f3fd\nÇok teşekkürler ❤️ — спасибо 1."
    assert isinstance(await send(YELP, fake, but(YELP, text=text)), Delivered)
    assert fake.comments[YELP_REVIEW] == "Thank you, Ada!\nÇok teşekkürler — спасибо 1."
    refused(await send(YELP, YELP.fake(), but(YELP, text="\U0001f64f")), Trouble.MESSAGE)


async def test_yelp_gives_a_token_for_the_owners_refresh_token() -> None:
    settings = yelp.Settings(
        client_id=YelpPartner.client_id,
        client_secret="env:SECRET",
        refresh_token="env:REFRESH",
        api_url=desk.BASE,
    )
    fake = YELP.fake()
    api = api_of(YELP, fake, settings, SECRET=fake.client_secret, REFRESH=YelpPartner.refresh_token)
    assert isinstance(await api.send(yelp.PROVIDER, YELP.post), Delivered)
    assert fake.tokens_given == 1
    wrong = api_of(YELP, fake, settings, SECRET=fake.client_secret, REFRESH="another")
    outcome = await wrong.send(yelp.PROVIDER, YELP.post)
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.ACCOUNT


def test_an_account_at_yelp_says_how_it_gets_in() -> None:
    with pytest.raises(ValueError, match="client_id, client_secret and refresh_token"):
        yelp.Settings(client_id="yelp-client", client_secret="env:SECRET")


# ------------------------------------------------------------------------------------- Meta


def with_human_agent(case: ProviderCase) -> AccountSettings:
    return case.settings.model_copy(update={"human_agent": True})


@pytest.mark.parametrize("case", [MESSENGER, INSTAGRAM], ids=lambda case: case.name)
async def test_a_persons_answer_goes_after_24_hours_where_the_app_has_the_human_agent(
    case: ProviderCase,
) -> None:
    fake = case.fake()
    fake.closed.add(case.post.to)
    refused(await send(case, fake), Trouble.WINDOW)
    assert isinstance(await send(case, fake, None, with_human_agent(case)), Delivered)
    automatic = but(case, occasion="solved", is_automatic=True)
    refused(await send(case, fake, automatic, with_human_agent(case)), Trouble.WINDOW)
    assert len(fake.sent) == 1


async def test_instagram_counts_bytes_and_a_text_of_too_many_is_refused() -> None:
    fake = INSTAGRAM.fake()
    assert isinstance(await send(INSTAGRAM, fake, but(INSTAGRAM, text="ş" * 500)), Delivered)
    outcome = await send(INSTAGRAM, fake, but(INSTAGRAM, text="ş" * 501))
    assert "bytes" in refused(outcome, Trouble.MESSAGE)


async def test_the_linked_page_sends_where_facebook_login_is_used() -> None:
    fake = INSTAGRAM.fake()
    fake.page = "1029384756"
    settings = INSTAGRAM.settings.model_copy(update={"page_id": "1029384756"})
    assert isinstance(await send(INSTAGRAM, fake, None, settings), Delivered)
    found = await api_of(INSTAGRAM, fake, settings).find(instagram.PROVIDER, INSTAGRAM.post)
    assert isinstance(found, Delivered)


async def test_a_comment_on_instagram_is_answered_in_its_thread_and_found_there() -> None:
    fake, post = commented(), comment_post()
    api = api_of(INSTAGRAM, fake)
    assert await api.find(instagram.PROVIDER, post) is None
    fake.lose_answer()
    assert isinstance(await api.send(instagram.PROVIDER, post), Unknown)
    assert [(sent.to, sent.text) for sent in fake.sent] == [(COMMENT, post.text)]
    found = await api.find(instagram.PROVIDER, post)
    assert found == Delivered("found in the thread", fake.sent[0].id)


@pytest.mark.parametrize(
    ("text", "thread"), [("a" * 301, COMMENT), ("Hello Ada!", "17900000000000009/../me")]
)
async def test_a_comment_on_instagram_has_300_characters_and_a_thread_of_its_own(
    text: str, thread: str
) -> None:
    fake = commented()
    outcome = await send(INSTAGRAM, fake, comment_post(text=text, thread=thread))
    refused(outcome, Trouble.MESSAGE)
    assert fake.sent == []


async def test_a_removed_comment_is_nowhere_to_answer() -> None:
    outcome = await send(INSTAGRAM, commented(), comment_post(thread="17900000000000002"))
    refused(outcome, Trouble.WINDOW)
    refused(await send(PAGE, PAGE.fake(), but(PAGE, thread="1029384756555_9")), Trouble.WINDOW)


async def test_a_conversation_with_too_many_newer_messages_is_not_looked_through() -> None:
    fake = MESSENGER.fake()
    person = MESSENGER.post.to
    for number in range(19):
        fake.write(person, f"Are you there? {number}", is_ours=False)
    api = api_of(MESSENGER, fake)
    assert await api.find(MESSENGER.provider, MESSENGER.post) is None
    fake.write(person, "Hello?", is_ours=False)
    assert isinstance(await api.find(MESSENGER.provider, MESSENGER.post), Unknown)
    fake.messages[person][19]["created_time"] = "2026-11-24T07:00:00+0000"
    assert await api.find(MESSENGER.provider, MESSENGER.post) is None


@pytest.mark.parametrize("case", [MESSENGER, INSTAGRAM], ids=lambda case: case.name)
async def test_a_conversation_without_the_customers_message_is_not_shown_as_it_is(
    case: ProviderCase,
) -> None:
    fake = case.fake()
    fake.messages.clear()
    outcome = await api_of(case, fake).find(case.provider, case.post)
    assert isinstance(outcome, Unknown)
    assert "customer's message is missing" in outcome.reason
    fake.trouble.append(JSONResponse({"data": []}))
    assert isinstance(await api_of(case, fake).find(case.provider, case.post), Unknown)


def next_page(items: list[dict[str, Any]]) -> Response:
    """Return a page that is shorter than was asked for, and not the last."""
    return JSONResponse({"data": items, "paging": {"next": f"{desk.BASE}/next"}})


async def test_a_short_page_of_metas_is_the_last_only_where_no_other_is_named() -> None:
    old = {"id": "1", "created_time": "2026-11-24T07:00:00+0000", "from": {"id": "5"}}
    new = old | {"created_time": "2026-11-24T08:00:05+0000"}
    for at, is_told in ((new, False), (old, True)):
        page = PAGE.fake()
        page.trouble.append(next_page([at | {"message": "Hello"}] * 40))
        found = await api_of(PAGE, page).find(PAGE.provider, PAGE.post)
        assert (found is None) == is_told
        assert is_told or isinstance(found, Unknown)
        account = commented()
        reply = {**at, "timestamp": at["created_time"], "text": "Hello"}
        account.trouble.append(next_page([reply] * 40))
        found = await api_of(INSTAGRAM, account).find(instagram.PROVIDER, comment_post())
        assert (found is None) == is_told
        chat = MESSENGER.fake()
        messages = {"data": [at | {"message": "Hello"}], "paging": {"next": f"{desk.BASE}/next"}}
        chat.trouble.append(JSONResponse({"data": [{"messages": messages}]}))
        found = await api_of(MESSENGER, chat).find(MESSENGER.provider, MESSENGER.post)
        assert (found is None) == is_told


@pytest.mark.parametrize("status", [404, 410])
async def test_a_comment_that_is_gone_without_a_code_is_over_and_nobody_is_condemned(
    status: int,
) -> None:
    page, account = PAGE.fake(), commented()
    page.refuse_write(status)
    account.refuse_write(status)
    refused(await send(PAGE, page), Trouble.WINDOW)
    refused(await send(INSTAGRAM, account, comment_post()), Trouble.WINDOW)


async def test_whatsapps_number_that_is_not_there_is_the_accounts_trouble() -> None:
    fake = WHATSAPP.fake()
    fake.refuse_write(400, '{"error": {"code": 100, "error_subcode": 33}}')
    outcome = await send(WHATSAPP, fake)
    assert isinstance(outcome, Failed)
    assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ACCOUNT, True)


def usage(text: str) -> dict[str, str]:
    return {"x-business-use-case-usage": text}


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        (usage('{"1": [{"estimated_time_to_regain_access": 7}]}'), timedelta(minutes=7)),
        (usage('{"1": [{"estimated_time_to_regain_access": 9999}]}'), timedelta(hours=6)),
        (usage('{"1": [{"estimated_time_to_regain_access": 1e300}]}'), timedelta(hours=6)),
        (usage('{"1": [{"estimated_time_to_regain_access": 0}]}'), None),
        (usage('{"1": [{}]}'), None),
        (usage('{"1": 7}'), None),
        (usage("[]"), None),
        (usage("{"), None),
        ({}, None),
    ],
)
def test_meta_says_in_minutes_how_long_to_wait(
    headers: dict[str, str], pause: timedelta | None
) -> None:
    assert graph.pause_of(headers) == pause


def test_the_proof_of_a_token_is_the_vendors_own() -> None:
    proof = graph.proof_of("EAAB-test-page-token", "meta-app-secret-0001")
    assert proof == "9617cc288513f462f590d42d79c57a0cc6262dd637e8c81745e74e5fdc031fcd"


@pytest.mark.parametrize("case", [MESSENGER, WHATSAPP], ids=lambda case: case.name)
async def test_an_approved_template_goes_when_the_24_hours_are_over(case: ProviderCase) -> None:
    fake = case.fake()
    before, person = len(fake.sent), case.to or case.post.to
    fake.closed.add(person)
    refused(await send(case, fake), Trouble.WINDOW)
    template = VendorTemplate("order_update", "en", ("Ada", "on\nits   way"))
    automatic = but(case, occasion="solved", is_automatic=True, template=template)
    assert isinstance(await send(case, fake, automatic), Delivered)
    assert [sent.text for sent in fake.sent[before:]] == ["order_update | Ada | on its way"]
    bare = but(case, template=VendorTemplate("hello", "tr"))
    assert isinstance(await send(case, fake, bare), Delivered)


@pytest.mark.parametrize("case", [MESSENGER, WHATSAPP], ids=lambda case: case.name)
@pytest.mark.parametrize(
    "template",
    [VendorTemplate("order_update", "ru", ("Ada", "x")), VendorTemplate("order_update", "en")],
)
async def test_a_template_that_the_vendor_does_not_know_so_is_the_messages_trouble(
    template: VendorTemplate, case: ProviderCase
) -> None:
    refused(await send(case, case.fake(), but(case, template=template)), Trouble.MESSAGE)


def test_whatsapp_and_messenger_are_the_vendors_with_templates_of_their_own() -> None:
    """A policy that names templates for any other vendor is refused by its check."""
    having = {name for name, one in PROVIDERS.items() if one.traits.has_templates}
    assert having == {"whatsapp", "messenger"}


async def test_a_template_of_messengers_whose_send_was_interrupted_is_for_a_person() -> None:
    """Its words are Meta's: what stands in the chat tells neither that it went nor that it did not."""
    fake = MESSENGER.fake()
    post = but(MESSENGER, template=VendorTemplate("order_update", "en", ("Ada", "x")))
    fake.lose_answer()
    assert isinstance(await send(MESSENGER, fake, post), Unknown)
    assert isinstance(await api_of(MESSENGER, fake).find(MESSENGER.provider, post), Unknown)


async def test_a_template_to_somebody_who_blocked_the_page_is_refused_as_a_text_is() -> None:
    fake = MESSENGER.fake()
    fake.blocked.add(MESSENGER.post.to)
    post = but(MESSENGER, template=VendorTemplate("hello", "tr"))
    refused(await send(MESSENGER, fake, post), Trouble.ADDRESS)


# ------------------------------------------------------------------------------------- WhatsApp


async def test_a_person_without_a_number_is_written_to_by_their_user_id() -> None:
    fake = WHATSAPP.fake()
    assert isinstance(await send(WHATSAPP, fake, but(WHATSAPP, to="US.13579")), Delivered)
    assert fake.sent[0].to == "US.13579"
    refused(await send(WHATSAPP, fake, but(WHATSAPP, to="ada@example.com")), Trouble.MESSAGE)


async def test_an_agents_answer_shows_what_it_answers_and_an_automatic_notice_does_not() -> None:
    fake = WHATSAPP.fake()
    assert isinstance(await send(WHATSAPP, fake), Delivered)
    automatic = but(WHATSAPP, occasion="received", is_automatic=True)
    assert isinstance(await send(WHATSAPP, fake, automatic), Delivered)
    assert fake.quoted == [WHATSAPP.post.answers]
    assert [sent.key for sent in fake.sent] == [WHATSAPP.post.key] * 2


# ------------------------------------------------------------------------------------- X


def test_a_request_is_signed_as_x_shows_it() -> None:
    """The numbers of X's own example."""
    keys = oauth1.Keys(
        consumer_key="xvz1evFS4wEEPTGEFPHBog",
        consumer_secret="kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
        token="370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        token_secret="LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
    )
    said = oauth1.header(
        keys,
        "POST",
        "https://api.twitter.com/1.1/statuses/update.json",
        {"include_entities": "true", "status": "Hello Ladies + Gentlemen, a signed OAuth request!"},
        nonce="kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
        seconds=1318622958,
    )
    signature = said.partition('oauth_signature="')[2].partition('"')[0]
    assert urllib.parse.unquote(signature) == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="
    assert "kAcSOq" not in f"{keys!r}"


async def test_a_post_is_answered_in_public_and_found_among_ours() -> None:
    fake, post = mentioned(), answer_to_post(text='Hello, we look at "it" & <you> in a moment!')
    api = api_of(X, fake)
    assert await api.find(x.PROVIDER, post) is None
    fake.lose_answer()
    assert isinstance(await api.send(x.PROVIDER, post), Unknown)
    assert [(sent.to, sent.text) for sent in fake.sent] == [("501", post.text)]
    found = await api.find(x.PROVIDER, post)
    assert found == Delivered("found in the thread", fake.sent[0].id)
    assert await api.find(x.PROVIDER, structs.replace(post, answers="502")) is None


async def test_what_was_sent_with_a_link_is_found_although_x_writes_another() -> None:
    text = "See https://shop.example/track/123."
    for post in (answer_to_post(text=text), but(X, text=text)):
        fake = mentioned()
        api = api_of(X, fake)
        fake.lose_answer()
        assert isinstance(await api.send(x.PROVIDER, post), Unknown)
        assert isinstance(await api.find(x.PROVIDER, post), Delivered)


async def test_a_post_whose_author_did_not_mention_us_may_not_be_answered() -> None:
    outcome = await send(X, mentioned(), answer_to_post(answers="502"))
    assert "mention" in refused(outcome, Trouble.MESSAGE)


async def test_the_very_same_words_are_not_posted_twice() -> None:
    fake = mentioned()
    assert isinstance(await send(X, fake, answer_to_post()), Delivered)
    refused(await send(X, fake, answer_to_post()), Trouble.MESSAGE)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("a" * 280, 280),
        ("ç" * 280, 280),
        ("Ж" * 280, 280),
        ("日" * 140, 280),
        ("\U0001f6cb" * 140, 280),
        ("see https://shop.example/a/very/long/path/indeed-it-is", 27),
        ("see shop.example", 27),
    ],
)
def test_a_post_is_weighed_as_x_weighs_it(text: str, weight: int) -> None:
    assert x.weight(text) == weight


async def test_a_post_that_weighs_too_much_is_refused_and_not_cut() -> None:
    fake = mentioned()
    refused(await send(X, fake, answer_to_post(text="日" * 141)), Trouble.MESSAGE)
    assert isinstance(await send(X, fake, answer_to_post(text="日" * 140)), Delivered)


async def test_an_automatic_post_carries_no_link_unless_that_is_paid_for() -> None:
    post = answer_to_post(
        occasion="received", is_automatic=True, text="Hello! See https://shop.example/help"
    )
    assert "links_in_posts" in refused(await send(X, mentioned(), post), Trouble.MESSAGE)
    paid = X.settings.model_copy(update={"links_in_posts": True})
    assert isinstance(await send(X, mentioned(), post, paid), Delivered)
    by_hand = structs.replace(post, occasion="answered", is_automatic=False)
    assert isinstance(await send(X, mentioned(), by_hand), Delivered)


async def test_what_is_not_known_to_be_public_goes_as_a_direct_message() -> None:
    fake = X.fake()
    assert isinstance(await send(X, fake, but(X, thread="")), Delivered)
    assert list(fake.direct) == ["2222"]


X_SHOWN = {"id": "1", "text": "Hi", "sender_id": "2222", "created_at": "2026-11-24T08:00:05.000Z"}


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({"meta": {"result_count": 0}}, type(None)),
        ({"data": [X_SHOWN], "meta": {"result_count": 1}}, type(None)),
        ({"meta": {"result_count": 3}}, Failed),
        ({"meta": {"result_count": 0}, "errors": [{"title": "Authorization Error"}]}, Failed),
        ({"data": [X_SHOWN], "errors": [{"title": "Authorization Error"}]}, Failed),
        ({"data": [X_SHOWN], "meta": {"result_count": 1, "next_token": "7140w"}}, Unknown),
    ],
)
async def test_x_says_that_there_is_nothing_only_in_so_many_words(
    said: dict[str, Any], ends: type
) -> None:
    fake = X.fake()
    fake.trouble.append(JSONResponse(said))
    assert isinstance(await api_of(X, fake).find(x.PROVIDER, X.post), ends)


async def test_a_person_whom_x_does_not_know_is_no_trouble_of_the_account() -> None:
    fake = X.fake()
    fake.refuse_write(404)
    refused(await send(X, fake), Trouble.ADDRESS)


async def test_x_says_in_which_second_its_limit_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x, "now_seconds", lambda: 1_790_000_000.0)
    answer = provider.Answer(429, {"x-rate-limit-reset": "1790000090"}, None)
    outcome = x._explain(answer)
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == timedelta(seconds=90)


# ------------------------------------------------------------------------------------- the others


async def test_a_post_that_waits_for_the_forums_approval_is_said_to_wait() -> None:
    fake = DISCOURSE.fake()
    fake.is_approved = True
    outcome = await send(DISCOURSE, fake)
    assert outcome == Delivered("waits for the forum's approval")


async def test_an_answer_in_a_forum_shows_which_post_it_answers() -> None:
    fake = DISCOURSE.fake()
    await send(DISCOURSE, fake)
    assert fake.posts[803]["reply_to_post_number"] == 2


@pytest.mark.parametrize("answers", ["999", "801", "", "no-number", "../1"])
async def test_a_post_that_is_gone_or_the_first_is_answered_in_the_topic(answers: str) -> None:
    fake = DISCOURSE.fake()
    assert isinstance(await send(DISCOURSE, fake, but(DISCOURSE, answers=answers)), Delivered)
    assert fake.posts[803]["reply_to_post_number"] is None


@pytest.mark.parametrize("text", ["Too short.", "Where is mine, please, and when does it come?"])
async def test_a_rule_of_the_forum_is_the_messages_trouble(text: str) -> None:
    fake = DISCOURSE.fake()
    if len(text) > 20:
        fake.closed.add(77)
    assert "forum" in refused(await send(DISCOURSE, fake, but(DISCOURSE, text=text)), Trouble.MESSAGE)  # fmt: skip


async def test_a_forum_that_says_how_long_to_wait_is_believed() -> None:
    fake = DISCOURSE.fake()
    fake.write_trouble.append(Response('{"extras": {"wait_seconds": 12}}', 429))
    outcome = await send(DISCOURSE, fake)
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == timedelta(seconds=12)


async def test_a_topic_with_too_many_newer_posts_is_not_looked_through() -> None:
    fake = DISCOURSE.fake()
    for number in range(9):
        fake.write(77, f"And another one of these {number}", "maria")
    api = api_of(DISCOURSE, fake)
    assert await api.find(discourse.PROVIDER, DISCOURSE.post) is None, "an older one is among them"
    fake.write(77, "And yet another one of these", "maria")
    assert isinstance(await api.find(discourse.PROVIDER, DISCOURSE.post), Unknown)


async def test_a_removed_post_does_not_end_the_look_at_a_topic() -> None:
    fake = DISCOURSE.fake()
    assert isinstance(await send(DISCOURSE, fake), Delivered)
    fake.write(77, "Oh, and another thing", "maria")
    del fake.posts[804]
    found = await api_of(DISCOURSE, fake).find(discourse.PROVIDER, DISCOURSE.post)
    assert found == Delivered("found in the thread", fake.sent[0].id)
    del fake.posts[803]
    assert await api_of(DISCOURSE, fake).find(discourse.PROVIDER, DISCOURSE.post) is None


async def test_where_our_posts_wait_for_approval_nobody_says_that_one_is_not_there() -> None:
    fake = DISCOURSE.fake()
    fake.is_approved = True
    fake.lose_answer()
    settings = DISCOURSE.settings.model_copy(update={"needs_approval": True})
    api = api_of(DISCOURSE, fake, settings)
    assert isinstance(await api.send(discourse.PROVIDER, DISCOURSE.post), Unknown)
    assert isinstance(await api.find(discourse.PROVIDER, DISCOURSE.post), Unknown)


async def test_a_topic_without_any_post_is_not_shown_as_it_is() -> None:
    fake = DISCOURSE.fake()
    fake.topics[77].clear()
    outcome = await api_of(DISCOURSE, fake).find(discourse.PROVIDER, DISCOURSE.post)
    assert isinstance(outcome, Unknown)


async def test_a_conversation_that_hootsuite_took_back_is_over() -> None:
    fake = HOOTSUITE.fake()
    fake.conversations.clear()
    assert "any more" in refused(await send(HOOTSUITE, fake), Trouble.WINDOW)


# ------------------------------------------------------------------------------------- echoes


def echo(entry: str, sender: str, person: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return Meta's callback for a message that the account sent."""
    event = {
        "sender": {"id": sender}, "recipient": {"id": person}, "timestamp": 1_795_500_001_000,
        "message": {"is_echo": True, **message},
    }  # fmt: skip
    return {"id": entry, "time": 1_795_500_001_500, "messaging": [event]}


@pytest.mark.parametrize("app_id", [None, "5544332211"])
async def test_our_message_in_messenger_does_not_come_back_as_an_answer_from_elsewhere(
    app_id: str | None,
) -> None:
    fake = MESSENGER.fake()
    await send(MESSENGER, fake)
    (sent,) = fake.sent
    message = {"mid": sent.id, "text": sent.text, "metadata": fake.metadata[sent.id]}
    body = {"object": "page", "entry": [echo(fake.page, fake.page, sent.to, message)]}
    settings = messenger_channel.Settings(page_id=fake.page, app_id=app_id)
    parsed = heard(messenger_channel.CHANNEL, body, settings)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


@pytest.mark.parametrize("app_id", [None, "5544332211"])
async def test_our_message_on_instagram_does_not_come_back_as_an_answer_from_elsewhere(
    app_id: str | None,
) -> None:
    fake = INSTAGRAM.fake()
    await send(INSTAGRAM, fake)
    (sent,) = fake.sent
    mark = {"metadata": fake.metadata[sent.id]} if app_id is None else {"app_id": app_id}
    message = {"mid": sent.id, "text": sent.text, **mark}
    body = {"object": "instagram", "entry": [echo(fake.account, fake.account, sent.to, message)]}
    settings = instagram_channel.Settings(page_id=fake.account, app_id=app_id)
    parsed = heard(instagram_channel.CHANNEL, body, settings)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_our_comment_on_instagram_does_not_come_back_as_a_customers() -> None:
    fake = commented()
    await send(INSTAGRAM, fake, comment_post())
    (reply,) = fake.comments[COMMENT]
    value = {
        "id": reply["id"], "text": reply["text"], "from": reply["from"], "parent_id": COMMENT,
        "media": {"id": "17800000000000009", "media_product_type": "FEED"},
    }  # fmt: skip
    entry = {
        "id": fake.account, "time": 1_795_500_001,
        "changes": [{"field": "comments", "value": value}],
    }  # fmt: skip
    settings = instagram_channel.Settings(page_id=fake.account)
    parsed = heard(instagram_channel.CHANNEL, {"object": "instagram", "entry": [entry]}, settings)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_our_comment_on_the_page_does_not_come_back_as_a_customers() -> None:
    fake = PAGE.fake()
    await send(PAGE, fake)
    (sent,) = fake.sent
    value = {
        "item": "comment", "verb": "add", "comment_id": sent.id, "post_id": "1029384756_555",
        "parent_id": sent.to, "from": {"id": fake.page, "name": "Lantern & Oak"},
        "message": sent.text, "created_time": 1_795_500_001,
    }  # fmt: skip
    entry = {
        "id": fake.page, "time": 1_795_500_001, "changes": [{"field": "feed", "value": value}],
    }  # fmt: skip
    settings = page_channel.Settings(page_id=fake.page)
    parsed = heard(page_channel.CHANNEL, {"object": "page", "entry": [entry]}, settings)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


@pytest.mark.parametrize("status", ["sent", "delivered", "read"])
async def test_what_whatsapp_says_of_our_message_is_no_message(status: str) -> None:
    fake = WHATSAPP.fake()
    outcome = await send(WHATSAPP, fake)
    assert isinstance(outcome, Delivered)
    told = {
        "id": outcome.message_id, "status": status, "timestamp": "1795500001",
        "recipient_id": fake.sent[0].to, "biz_opaque_callback_data": fake.sent[0].key,
    }  # fmt: skip
    metadata = {"display_phone_number": "15550100200", "phone_number_id": fake.number}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "statuses": [told]}
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": "330011223344", "changes": [{"field": "messages", "value": value}]}],
    }
    parsed = heard(whatsapp_channel.CHANNEL, body, whatsapp_channel.Settings())
    assert parsed.messages == ()
    assert {one.vendor_message_id for one in parsed.receipts} <= {outcome.message_id}


async def test_our_direct_message_on_x_does_not_come_back_as_an_answer_from_elsewhere() -> None:
    fake = X.fake()
    await send(X, fake)
    (sent,) = fake.sent
    event = {
        "type": "message_create", "id": sent.id, "created_timestamp": "1795500001000",
        "message_create": {
            "target": {"recipient_id": sent.to}, "sender_id": fake.user,
            "source_app_id": "77665544", "message_data": {"text": sent.text},
        },
    }  # fmt: skip
    data = {
        "event_uuid": "1", "filter": {"user_id": fake.user}, "event_type": "dm.sent",
        "payload": {"direct_message_events": [event]},
    }  # fmt: skip
    for settings in (x_channel.Settings(), x_channel.Settings(app_id="77665544")):
        parsed = heard(x_channel.CHANNEL, {"data": data}, settings)
        assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_our_post_on_x_does_not_come_back_as_a_customers() -> None:
    fake = mentioned()
    await send(X, fake, answer_to_post())
    (written,) = fake.written
    data = {
        "event_uuid": "2", "filter": {"user_id": fake.user}, "event_type": "post.reply.create",
        "payload": {
            "id": written["id"], "text": written["text"], "author_id": fake.user,
            "created_at": written["created_at"], "conversation_id": "500",
            "referenced_tweets": written["referenced_tweets"],
        },
    }  # fmt: skip
    parsed = heard(x_channel.CHANNEL, {"data": data}, x_channel.Settings())
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_our_post_in_the_forum_does_not_come_back_as_a_customers() -> None:
    fake = DISCOURSE.fake()
    await send(DISCOURSE, fake)
    post = {**fake.posts[803], "user_id": 4, "post_type": 1, "topic_archetype": "regular"}
    settings = discourse_channel.Settings(own_ids=("Support-Bot",))
    headers = {"x-discourse-event": "post_created"}
    parsed = heard(discourse_channel.CHANNEL, {"post": post}, settings, headers)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def looked_at_google(fake: Any, settings: google_channel.Settings) -> list[Parsed]:
    secrets = {"client_secret": "client-secret", "refresh_token": "refresh-token"}
    api = ingest_api.VendorApi(settings, secrets, desk.client(fake.server()))
    notice = json.dumps(
        {"notificationType": "UPDATED_REVIEW", "reviewName": f"{PLACES[1]}/reviews/Ab1"}
    )
    push = {"message": {"messageId": "1", "data": base64.b64encode(notice.encode()).decode()}}
    hint = Delivery("google_reviews", "shop", json.dumps(push).encode(), NOW, settings=settings)
    items = await google_channel.read_back(api, hint)
    return [heard(google_channel.CHANNEL, one.body, settings, {FETCHED: one.kind}) for one in items]


async def test_our_reply_at_google_does_not_come_back_where_all_replies_are_ours() -> None:
    fake = GOOGLE.fake()
    outcome = await send(GOOGLE, fake)
    assert isinstance(outcome, Delivered)
    settings = google_channel.Settings(
        client_id="client",
        client_secret="env:A",
        refresh_token="env:B",
        replies="ours",
        api_url=desk.BASE,
        token_url=f"{desk.BASE}/token",
    )
    review, reply = await looked_at_google(fake, settings)
    assert len(review.messages) == 1
    assert (reply.messages, reply.ignored) == ((), "echo")
    taken = settings.model_copy(update={"replies": "take"})
    _, reply = await looked_at_google(fake, taken)
    (message,) = reply.messages
    assert (message.direction, message.vendor_message_id) == ("outbound", outcome.message_id)


@pytest.mark.parametrize(
    ("more", "comes_back"),
    [
        ({"own_ids": ("ada-at-trustpilot",)}, False),
        ({"replies": "ours"}, False),
        ({"own_ids": ("another",)}, True),
    ],
)
async def test_our_reply_at_trustpilot_is_known_by_its_author(
    more: dict[str, Any], comes_back: bool
) -> None:
    fake = TRUSTPILOT.fake()
    outcome = await send(TRUSTPILOT, fake)
    assert isinstance(outcome, Delivered)
    settings = trustpilot_channel.Settings(
        api_key="api-key", api_secret="env:A", api_url=desk.BASE, **more
    )
    api = ingest_api.VendorApi(settings, {"api_secret": "api-secret"}, desk.client(fake.server()))
    event = {"eventName": "service-review-updated", "eventData": {"id": TRUSTPILOT_REVIEW}}
    hint = Delivery(
        "trustpilot", "shop", json.dumps({"events": [event]}).encode(), NOW, settings=settings
    )
    _, item = await trustpilot_channel.read_back(api, hint)
    reply = heard(trustpilot_channel.CHANNEL, item.body, settings, {FETCHED: item.kind})
    if comes_back:
        assert [one.vendor_message_id for one in reply.messages] == [outcome.message_id]
    else:
        assert (reply.messages, reply.ignored) == ((), "echo")


def test_the_modules_are_those_of_the_channels() -> None:
    """A provider is named as the channel that it answers."""
    for module in (facebook_page, google_reviews, trustpilot, whatsapp, x, yelp, discourse):
        assert module.PROVIDER.name in module.PROVIDER.traits.channels
