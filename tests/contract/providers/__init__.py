"""The cases of the providers' contract suite, one module a vendor: `<vendor>.py` with a `CASE` (or `CASES`, a tuple).

A case brings a provider together with a fake of its vendor:

    CASE = ProviderCase(
        provider=zendesk.PROVIDER,
        settings=zendesk.Settings(url=desk.BASE, client_id="signalbox", client_secret="env:SECRET"),
        secrets={"env:SECRET": zendesk_fake.Zendesk.client_secret},
        fake=zendesk_fake.Zendesk,                    # makes a new one for each test
        post=a_post(zendesk.PROVIDER, thread="5158"),
        has_tokens=True,                              # an OAuth token is asked for; the fake counts `tokens_given`
        errors=(VendorError(422, '{"error": "RecordInvalid"}', Trouble.MESSAGE), …),
    )

The fake extends `tests.fakes.desk.Desk` and has `server()`. Messages that it really takes it appends to `sent` as
`desk.Sent(to, text, key, id)`: `to` is what the vendor routes by (the case's `to`), `text` the words as they would be shown
(the case's `words`), `key` the idempotency key. A keyed fake answers a repeat as its vendor does and appends nothing. It goes
through `Desk.app(write=…)` for JSON, `form=…` for forms, `upload=…` for other bodies, so that `refuse_write`, `lose_write`,
`lose_answer` and `hang` work on it; searches that are POSTs and token endpoints go to `post=…`.

The suite (`test_providers.py`) shows for each case: a post arrives once with its exact words where it belongs · a repeat of a
keyed one makes no second message · a lost answer of an unkeyed one is `Unknown` · `find` finds what was sent and nothing where
nothing was · 429 with seconds and with a date · 401 and 403 are the account's trouble, and tokens are asked for anew · 5xx ·
redirects · endless and slow answers · answers that are no JSON · secrets that are missing or wrong · the longest text and one
beyond · text that looks like code · the vendor's own errors · no secret and no words in any reason.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from services.notifier.adapters.provider import Provider
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.post import Post, Trouble
from services.notifier.core.state import Mail

KEY = "0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e01"
OTHER_KEY = "0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e02"
WORDS = "Hello Ada,\nyour lamp is on its way.\nThank you for your patience!"


@dataclass(frozen=True)
class VendorError:
    """A refusal in the vendor's own words, and whose trouble it is; `is_recoverable` where trying again may help.

    `is_unknown`: nobody knows whether it had an effect. `headers` are the answer's.
    """

    status: int
    body: str
    trouble: Trouble
    is_recoverable: bool = False
    is_unknown: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProviderCase:
    """A provider, its account's settings and secrets by reference, a maker of its fake, and a post that the fake takes."""

    provider: Provider
    settings: AccountSettings
    secrets: Mapping[str, str]
    fake: Callable[[], Any]
    post: Any
    to: str | None = None
    """What `Sent.to` must be; by default the post's address, thread or message, as the provider's traits say."""
    words: Callable[[Any], str] | None = None
    """What `Sent.text` must be; by default the post's HTML where the provider carries HTML, else its text."""
    has_tokens: bool = False
    """Whether an OAuth token is asked for: the fake counts them in `tokens_given`."""
    splits: bool = False
    """A text beyond `text_max` goes as several messages; by default it is refused as the message's trouble."""
    is_quiet: bool = False
    """The vendor's success has no JSON body that anything is read from, so one that is no JSON says nothing."""
    errors: tuple[VendorError, ...] = ()

    @property
    def name(self) -> str:
        """The provider's name, and the test's."""
        return self.provider.name

    def where(self, post: Any) -> str:
        """Return what the fake is to keep as `to`."""
        if self.to is not None:
            return self.to
        return str(getattr(post, self.field_of(post)))

    def field_of(self, post: Any) -> str:
        """Return the name of the post's field that says where it goes."""
        if isinstance(post, Mail):
            return "to_address"
        by = {"address": "to", "thread": "thread", "message": "answers"}
        return by[self.provider.traits.addressing]

    def said(self, post: Any) -> str:
        """Return what the fake is to keep as `text`."""
        if self.words is not None:
            return self.words(post)
        return str(post.html if self.provider.traits.form == "html" else post.text)


def a_post(provider: Provider, **changes: Any) -> Post:
    """Return a post for a provider, with words that are the same for all; `to`, `thread` and `answers` are the vendor's ids."""
    is_html = provider.traits.form == "html"
    post = Post(
        key=KEY,
        provider=provider.name,
        account="desk",
        occasion="answered",
        to="ada@example.com",
        thread="5158",
        answers="9001",
        subject="Your lamp",
        text=WORDS,
        html="<p>" + WORDS.replace("\n", "<br>") + "</p>" if is_html else "",
        language="en",
        date=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
        is_automatic=False,
    )
    return structs.replace(post, **changes)


def cases() -> list[ProviderCase]:
    """Return all cases of this folder, by name."""
    found: list[ProviderCase] = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found += [module.CASE] if hasattr(module, "CASE") else list(module.CASES)
    return sorted(found, key=lambda case: case.name)
