"""Discourse: a notice as a post of our own user in the customer's topic or private message.

Sources: Discourse's API pages (`POST /posts.json` with `raw`, `topic_id`, `reply_to_post_number`; `GET
/posts/{id}.json` and `GET /t/{id}.json` for look-ups; the headers `Api-Key` and `Api-Username`), and its source for
the answer of a post that waits for approval and of a limit (`extras.wait_seconds`).

Topics are read by everybody, so what is written here is fit for everybody, in private messages too: the thread's
number does not tell one from the other. There is no idempotency key; an interrupted post is looked up among the
topic's last posts.

Believed and not confirmed: 20 characters at least, the same words twice refused with 422 (as all rules of a forum
are, whose words are in the forum's language and are not told apart here), 32,000 characters at most (the default of
`max_post_length`). Nothing was tried against a live forum.
"""

from datetime import timedelta
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk, public
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Discourse"
TEXT_MAX: Final = 32_000
"""Characters of a post (the default of a forum's setting)."""
NEWEST: Final = 10
"""Posts of a topic that a look-up reads at most, the newest; it ends at the first that is older than the notice."""
WAIT_MAX: Final = 86_400.0


class Settings(AccountSettings):
    """A forum, and our user there."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://forum.shop.example",
        "api_key": "env:DISCOURSE_API_KEY",
        "username": "support-bot",
    }

    url: ApiAddress
    """The forum's address."""
    api_key: SecretReference
    """An API key of that user: of the scope `posts: create` with `topics: read`, or without scopes."""
    username: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    """The user in whose name notices are written; the same name stands in the channel's `own_ids`."""
    needs_approval: bool = False
    """Whether posts of that user wait for somebody's approval; those that do cannot be looked up."""


TRAITS: Final = Traits(
    channels=frozenset({"discourse"}),
    form="text",
    addressing="thread",
    can_find=True,
    is_public=True,
    text_max=TEXT_MAX,
)


class _Post(msgspec.Struct, frozen=True):
    id: str | int | None = None
    topic_id: str | int | None = None
    post_number: int | None = None
    username: str | None = None
    raw: str | None = None
    created_at: str | None = None
    action: str | None = None


class _Stream(msgspec.Struct, frozen=True):
    stream: tuple[int, ...]


class _Topic(msgspec.Struct, frozen=True):
    post_stream: _Stream


class _Extras(msgspec.Struct, frozen=True):
    wait_seconds: float | None = None


class _Refusal(msgspec.Struct, frozen=True):
    extras: _Extras | None = None


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the topic is gone, or not shown to our user")
    if answer.status == 422:
        reason = (
            f"{VENDOR}: a rule of the forum refuses the post (too short, too like an earlier one,"
            " or a closed topic)"
        )
        return Failed(reason, is_recoverable=False)
    wait = _wait(answer) if answer.status == 429 else None
    if wait is not None:
        return Failed(f"{VENDOR}: too many calls", True, wait, Trouble.PROVIDER)
    return None


def _wait(answer: Answer) -> timedelta | None:
    """Return the wait that the body tells; None where it tells none (a header may)."""
    try:
        refusal = msgspec.convert(answer.body, _Refusal, strict=False)
    except msgspec.ValidationError:
        return None
    seconds = refusal.extras.wait_seconds if refusal.extras is not None else None
    if seconds is None or not 0 <= seconds <= WAIT_MAX:
        return None
    return timedelta(seconds=seconds)


def _headers(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    return {"Api-Key": api.secret("api_key"), "Api-Username": settings.username}


async def _answered(api: Api, post: Post, topic: str) -> int | None:
    """Return the number of the post that is answered; None where it is not there any more, or not in this topic."""
    if not (post.answers.isascii() and post.answers.isdigit() and len(post.answers) <= 20):
        return None
    found = await _shown(api, post.answers)
    if found is None or helpdesk.id_of(found.topic_id) != topic:
        return None
    return found.post_number


async def _shown(api: Api, number: str) -> _Post | None:
    """Return a post; None where it is gone."""
    url = f"{helpdesk.settings_of(api, Settings).url}/posts/{number}.json"
    try:
        answer = await api.call("GET", url, headers=_headers(api), explain=_explain)
    except Problem as problem:
        outcome = problem.outcome
        if isinstance(outcome, Failed) and outcome.trouble is Trouble.WINDOW:
            return None
        raise
    return helpdesk.shaped(answer, _Post, VENDOR)


async def send(api: Api, post: Post) -> Delivered:
    """Post the notice in the customer's topic, as an answer to what they wrote.

    Raises:
        Problem: it could not be written, and what that means.
    """
    public.check(post, VENDOR)
    settings = helpdesk.settings_of(api, Settings)
    topic = helpdesk.number_of(post, VENDOR, "topic")
    body: dict[str, Any] = {
        "raw": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        "topic_id": int(topic),
    }
    number = await _answered(api, post, topic)
    # Discourse shows no arrow to the topic's first post.
    if number is not None and number > 1:
        body["reply_to_post_number"] = number
    answer = await api.call(
        "POST",
        f"{settings.url}/posts.json",
        is_making=True,
        json=body,
        headers=_headers(api),
        explain=_explain,
    )
    made = helpdesk.made(answer, _Post) or _Post()
    if made.action == "enqueued":
        return Delivered("waits for the forum's approval")
    return Delivered("taken", helpdesk.id_of(made.id))


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the last posts of the topic.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    topic = helpdesk.number_of(post, VENDOR, "topic")
    url = f"{settings.url}/t/{topic}"
    whole = await api.call("GET", f"{url}.json", headers=_headers(api), explain=_explain)
    stream = helpdesk.shaped(whole, _Topic, VENDOR).post_stream.stream
    if not stream:
        raise helpdesk.not_shown(VENDOR)
    written: list[helpdesk.Written] = []
    is_whole = len(stream) <= NEWEST
    for number in reversed(stream[-NEWEST:]):
        one = await _shown(api, str(number))
        if one is None:
            continue
        if one.username is None or one.raw is None:
            later(f"{VENDOR}: a post is not shown with its words")
        at = helpdesk.instant(one.created_at)
        if helpdesk.is_before(at, post):
            is_whole = True
            break
        if one.username.lower() == settings.username.lower():
            written.append(helpdesk.Written(helpdesk.id_of(one.id), at, one.raw, False))
    found = helpdesk.sought(post, written, VENDOR)
    if found is None and not is_whole:
        raise helpdesk.not_told(VENDOR)
    if found is None and settings.needs_approval:
        raise helpdesk.not_told(VENDOR, "it may wait for the forum's approval")
    return found


PROVIDER: Final = Provider(
    name="discourse",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the API key (Admin, API, Keys) and its scopes, and that the user of `username` exists and may write"
        " where customers do"
    ),
)
