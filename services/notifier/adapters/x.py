"""X (formerly Twitter): a notice as a direct message, or as a public answer to the customer's post.

Sources: docs.x.com (`POST /2/dm_conversations/with/{id}/messages`, `POST /2/tweets` with
`reply.in_reply_to_tweet_id`, the look-ups `GET /2/dm_conversations/with/{id}/dm_events` and `GET
/2/users/{id}/tweets`, rate limits and their headers, problems as JSON), and the public library twitter-text for how
a post's length is counted. Requests are signed with OAuth 1.0a in a user's name: its four keys do not expire, while
an OAuth 2.0 token lives two hours and its refresh token is used up by one use.

Where the customer wrote decides: a direct conversation's thread is two ids joined by a dash, a post's thread is one
number. What has neither goes as a direct message, never in public.

There is no idempotency key; an interrupted send is looked up. On self-serve plans a post may be answered only where
its author mentioned or quoted us. Each call costs money, and a post with a link costs a multiple: automatic notices
in public carry none, unless `links_in_posts` allows it. Believed and not confirmed: the words by which a refusal
(403) is told apart, 10,000 characters to a direct message, 402 for an account without credit. Nothing was tried
against a live account.
"""

import re
import secrets
import unicodedata
from collections.abc import Mapping
from datetime import UTC, timedelta
from html import unescape
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from chassis.clock import now_seconds
from services.notifier.adapters import helpdesk, oauth1, public
from services.notifier.adapters.provider import Answer, Api, Explain, Provider, later, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "X"
DIRECT_MAX: Final = 10_000
"""Characters of a direct message (believed)."""
WEIGHT_MAX: Final = 280
"""What a post may weigh: most letters of European languages weigh 1, all others and emoji 2, a link 23."""
LINK_WEIGHT: Final = 23
PAGE_SIZE: Final = 100
"""Messages or posts that a look-up reads, the most a page has."""
PAUSE_MAX: Final = timedelta(hours=24)

_LINK: Final = re.compile(r"https?://\S+", re.IGNORECASE)
_BARE_LINK: Final = re.compile(r"[\w-]+(?:\.[\w-]{2,})+(?:/\S*)?")
_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))
"""Code points of weight 1 (twitter-text, configuration 3)."""
_HANDLES: Final = re.compile(r"^(?:@\w{1,50}\s+)+")
_NOBODY: Final = ("cannot send messages", "not following", "blocked", "suspended", "deactivated")


class Settings(AccountSettings):
    """An X account, and the app that writes for it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "user_id": "1111",
        "consumer_key": "env:X_CONSUMER_KEY",
        "consumer_secret": "env:X_CONSUMER_SECRET",
        "access_token": "env:X_ACCESS_TOKEN",
        "access_token_secret": "env:X_ACCESS_TOKEN_SECRET",
    }

    user_id: str = Field(pattern=r"^[0-9]{1,25}$")
    """The account's numeric id."""
    consumer_key: SecretReference
    """The app's API key."""
    consumer_secret: SecretReference
    """The app's API key secret, which also signs webhooks."""
    access_token: SecretReference
    """The account's access token for the app, made with read, write and direct messages."""
    access_token_secret: SecretReference
    """Its secret."""
    links_in_posts: bool = False
    """Whether automatic notices in public may carry a link, which makes a post cost a multiple."""
    api_url: ApiAddress = "https://api.x.com"
    """The API's address."""


TRAITS: Final = Traits(
    channels=frozenset({"x"}),
    form="text",
    addressing="address",
    can_find=True,
    text_max=DIRECT_MAX,
    public_thread=r"[0-9]+",  # Posts. The thread of direct messages has another form.
)


class _Made(msgspec.Struct, frozen=True):
    id: str = ""
    dm_event_id: str = ""


class _Answered(msgspec.Struct, frozen=True):
    data: _Made


class _Reference(msgspec.Struct, frozen=True):
    type: str = ""
    id: str | int | None = None


class _NoteText(msgspec.Struct, frozen=True):
    text: str | None = None


class _Item(msgspec.Struct, frozen=True):
    id: str | int | None = None
    text: str | None = None
    note_tweet: _NoteText | None = None
    sender_id: str | int | None = None
    created_at: str | None = None
    referenced_tweets: tuple[_Reference, ...] = ()


class _Meta(msgspec.Struct, frozen=True):
    result_count: int | None = None
    next_token: str | None = None


class _Items(msgspec.Struct, frozen=True):
    """A page. X leaves `data` out where it has none, and then says so by a count of nothing.

    `errors` stand beside what could be shown: X answers 200 although a part is not.
    """

    data: tuple[_Item, ...] | None = None
    meta: _Meta = _Meta()
    errors: tuple[Any, ...] = ()


class _Problem(msgspec.Struct, frozen=True):
    type: str = ""
    detail: str = ""


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means. 403 is about the message, the person or the app: only its words tell."""
    if answer.status == 402:
        return Failed(f"{VENDOR}: the account has no credit", True, None, Trouble.ACCOUNT)
    pause = _pause(answer.headers) if answer.status == 429 else None
    if pause is not None:
        return Failed(f"{VENDOR}: too many calls", True, pause, Trouble.PROVIDER)
    if answer.status != 403:
        return None
    try:
        problem = msgspec.convert(answer.body, _Problem, strict=False)
    except msgspec.ValidationError:
        return None
    detail = problem.detail.lower()
    if any(words in detail for words in _NOBODY):
        reason = f"{VENDOR}: they take no messages of ours"
        return Failed(reason, is_recoverable=False, trouble=Trouble.ADDRESS)
    if "duplicate" in detail:
        return Failed(f"{VENDOR}: these very words were posted before", is_recoverable=False)
    if "mentioned" in detail or "reply" in detail:
        reason = f"{VENDOR}: the post may not be answered by the API: its author did not mention us"
        return Failed(reason, is_recoverable=False)
    # Named problems (`…/problems/oauth1-permissions` and the like) are the app's; others are this message's.
    if "/problems/" in problem.type or not detail:
        return None
    return Failed(f"{VENDOR}: the message is refused", is_recoverable=False)


def _explain_person(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means of a call whose address names the person."""
    if answer.status in (404, 410):
        return Failed(f"{VENDOR}: there is no such person", False, None, Trouble.ADDRESS)
    return _explain(answer)


def _pause(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long the limit still holds: X tells the second in which it ends. None where it does not."""
    told = headers.get("x-rate-limit-reset", "").strip()
    if not (told.isascii() and told.isdigit() and len(told) < 12):
        return None
    return min(max(timedelta(seconds=int(told) - now_seconds()), timedelta(seconds=1)), PAUSE_MAX)


async def _call(
    api: Api,
    method: str,
    path: str,
    *,
    json: Any = None,
    params: Mapping[str, str] | None = None,
    explain: Explain = _explain,
) -> Answer:
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.api_url}{path}"
    keys = oauth1.Keys(
        consumer_key=api.secret("consumer_key"),
        consumer_secret=api.secret("consumer_secret"),
        token=api.secret("access_token"),
        token_secret=api.secret("access_token_secret"),
    )
    signed = oauth1.header(
        keys,
        method,
        url,
        params or {},
        nonce=secrets.token_hex(16),
        seconds=int(now_seconds()),
    )
    return await api.call(
        method,
        url,
        is_making=method == "POST",
        json=json,
        params=params,
        headers={"Authorization": signed},
        explain=explain,
    )


def _is_in_public(post: Post) -> bool:
    return bool(post.thread) and "-" not in post.thread


def _number(value: str, what: str) -> str:
    if not (value.isascii() and value.isdigit() and len(value) <= 25):
        refuse(Trouble.MESSAGE, f"{VENDOR}: {what} is not known by its number")
    return value


def weight(text: str) -> int:
    """Return what a text weighs as a post; it may be more than X's own count, never less.

    Joined emoji count each part, and whatever looks like a link without its beginning (`shop.example`) counts as one.
    """
    plain, links = _LINK.subn("", unicodedata.normalize("NFC", text))
    bare = sum(max(0, LINK_WEIGHT - len(found)) for found in _BARE_LINK.findall(plain))
    return sum(map(_weight_of, plain)) + links * LINK_WEIGHT + bare


def _weight_of(one: str) -> int:
    return 1 if any(first <= ord(one) <= last for first, last in _LIGHT) else 2


async def send(api: Api, post: Post) -> Delivered:
    """Send the notice to the person, or answer their post.

    Raises:
        Problem: it could not be sent, and what that means.
    """
    if _is_in_public(post):
        return await _answer_post(api, post)
    text = helpdesk.fitting(post, VENDOR, DIRECT_MAX)
    person = _number(post.to, "the person")
    path = f"/2/dm_conversations/with/{person}/messages"
    answer = await _call(api, "POST", path, json={"text": text}, explain=_explain_person)
    return helpdesk.taken(answer, _Answered, lambda made: made.data.dm_event_id)


async def _answer_post(api: Api, post: Post) -> Delivered:
    settings = helpdesk.settings_of(api, Settings)
    public.check(post, VENDOR)
    text = helpdesk.fitting(post, VENDOR, DIRECT_MAX)
    if weight(text) > WEIGHT_MAX:
        refuse(Trouble.MESSAGE, f"{VENDOR}: the text is too long for a post ({WEIGHT_MAX})")
    if post.is_automatic and not settings.links_in_posts and _LINK.search(text):
        refuse(Trouble.MESSAGE, f"{VENDOR}: automatic posts carry no link (see `links_in_posts`)")
    _number(post.thread, "the conversation")
    reply = {"in_reply_to_tweet_id": _number(post.answers, "the post to answer")}
    answer = await _call(api, "POST", "/2/tweets", json={"text": text, "reply": reply})
    return helpdesk.taken(answer, _Answered, lambda made: made.data.id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among our newest posts, or in the direct conversation.

    Raises:
        Problem: it could not be told.
    """
    own = helpdesk.settings_of(api, Settings).user_id
    if _is_in_public(post):
        path, params = f"/2/users/{own}/tweets", _since(post)
    else:
        person = _number(post.to, "the person")
        path = f"/2/dm_conversations/with/{person}/dm_events"
        params = {
            "max_results": str(PAGE_SIZE),
            "event_types": "MessageCreate",
            "dm_event.fields": "id,text,sender_id,created_at",
        }
    page = helpdesk.shaped(await _call(api, "GET", path, params=params), _Items, VENDOR)
    items = page.data
    if items is None and (page.meta.result_count != 0 or page.errors):
        later(f"{VENDOR}: the messages are not shown")
    items = items or ()
    wanted = msgspec.structs.replace(post, text=_without_links(post.text))
    found = helpdesk.sought(wanted, _ours(post, items, own), VENDOR)
    if found is None and page.errors:
        later(f"{VENDOR}: the messages are shown in part")
    has_more = len(items) >= PAGE_SIZE or bool(page.meta.next_token)
    times = [one.created_at for one in items]
    if found is None and has_more and not helpdesk.is_done(times, post):
        raise helpdesk.not_told(VENDOR)
    return found


def _without_links(text: str) -> str:
    """Return a text whose links are all alike: X puts short ones of its own in their place."""
    return _LINK.sub("https://t.co", text)


def _since(post: Post) -> dict[str, str]:
    return {
        "max_results": str(PAGE_SIZE),
        "start_time": helpdesk.since(post).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tweet.fields": "created_at,referenced_tweets,note_tweet",
    }


def _ours(post: Post, items: tuple[_Item, ...], own: str) -> list[helpdesk.Written]:
    """Return what we wrote to the person, or in answer to the post; X puts handles in front of an answer."""
    written = []
    for one in items:
        if _is_in_public(post):
            answered = {helpdesk.id_of(ref.id) for ref in one.referenced_tweets}
            is_ours = post.answers in answered
        else:
            is_ours = helpdesk.id_of(one.sender_id) == own
        if is_ours:
            whole = (one.note_tweet.text if one.note_tweet is not None else None) or one.text or ""
            text = _without_links(unescape(whole))
            if not _HANDLES.match(post.text):
                text = _HANDLES.sub("", text)
            at = helpdesk.instant(one.created_at)
            written.append(helpdesk.Written(helpdesk.id_of(one.id), at, text, is_html=False))
    return written


PROVIDER: Final = Provider(
    name="x",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the app's API key and the account's access token (Keys and tokens in X's developer portal; made anew"
        " after the app's permissions were changed to read, write and direct messages), and the account's credit"
        " there"
    ),
)
