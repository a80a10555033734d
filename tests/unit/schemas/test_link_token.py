"""Signed links: what comes out is what went in, and nothing else comes out of anything else."""

import base64
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import link_token
from schemas.feedback import SCALES, SurveyKind
from schemas.link_token import LinkRefused, SurveyLink, WishLink
from schemas.notifications import Category

SECRET = b"a secret of at least thirty-two characters"
NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
TICKET = "3c59dc04-8e88-5024-9be8-079a5c74d079"
LINK = SurveyLink(CONVERSATION, TICKET, "csat", 2, "tr", NOW)
TOKEN = link_token.make(SECRET, "default", LINK)


@given(
    kind=st.sampled_from(get_args(SurveyKind)),
    score=st.integers(0, 10),
    conversation=st.uuids(),
    ticket=st.uuids(),
    language=st.sampled_from(link_token.LANGUAGES),
    seconds=st.integers(0, 180 * 86_400 - 1),
)
def test_a_survey_link_opens_to_what_it_was_made_of(
    kind: SurveyKind, score: int, conversation: UUID, ticket: UUID, language: str, seconds: int
) -> None:
    scale = SCALES[kind]
    given_score = score if scale.least <= score <= scale.most else None
    link = SurveyLink(str(conversation), str(ticket), kind, given_score, language, NOW)
    token = link_token.make(SECRET, "default", link)
    assert len(token) == link_token.TOKEN_LENGTH
    assert link_token.read(SECRET, "default", token, NOW + timedelta(seconds=seconds)) == link


@pytest.mark.parametrize("category", get_args(Category))
def test_a_way_out_opens_to_its_category(category: Category) -> None:
    link = WishLink(CONVERSATION, TICKET, category, "ru", NOW)
    token = link_token.make(SECRET, "default", link)
    assert link_token.read(SECRET, "default", token, NOW + timedelta(days=1_000)) == link


def refused(
    token: str, now: datetime = NOW, secret: bytes = SECRET, workspace: str = "default"
) -> str:
    with pytest.raises(LinkRefused) as caught:
        link_token.read(secret, workspace, token, now)
    assert token == "" or token not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("place", range(link_token.TOKEN_LENGTH))
def test_a_changed_character_anywhere_opens_nothing(place: int) -> None:
    other = "A" if TOKEN[place] != "A" else "B"
    assert refused(TOKEN[:place] + other + TOKEN[place + 1 :]) in ("forged", "malformed")


@given(st.text(max_size=100))
def test_no_other_text_opens_anything(text: str) -> None:
    assert refused(text) in ("forged", "malformed")


@given(st.binary(min_size=58, max_size=58))
def test_no_guess_of_the_right_length_opens_anything(raw: bytes) -> None:
    assert refused(base64.urlsafe_b64encode(raw).decode().rstrip("=")) == "forged"


def test_another_secret_or_workspace_opens_nothing() -> None:
    assert refused(TOKEN, secret=b"another secret of at least thirty-two") == "forged"
    assert refused(TOKEN, workspace="other") == "forged"


def test_a_link_ends_with_its_time_and_not_a_second_before() -> None:
    ends_at = NOW + link_token.SURVEY_LIFETIME
    assert link_token.read(SECRET, "default", TOKEN, ends_at - timedelta(seconds=1)) == LINK
    assert refused(TOKEN, now=ends_at) == "expired"
    assert refused(TOKEN, now=NOW - timedelta(minutes=6)) == "expired"


def test_a_link_is_the_same_text_every_time_and_another_for_everything_else() -> None:
    assert link_token.make(SECRET, "default", LINK) == TOKEN
    others = {
        link_token.make(
            SECRET, "default", SurveyLink(CONVERSATION, TICKET, "csat", score, "tr", NOW)
        )
        for score in range(1, 6)
    }
    assert len(others) == 5
    # Nothing but their author sees that they belong together.
    assert len({token[:8] for token in others} | {token[-8:] for token in others}) == 10


def test_the_text_tells_nothing_of_whom_it_is_about() -> None:
    raw = base64.urlsafe_b64decode(TOKEN + "==")
    for inside in (UUID(CONVERSATION).bytes, UUID(TICKET).bytes):
        assert not any(inside[at : at + 4] in raw for at in range(13))


def test_a_score_that_the_survey_does_not_know_makes_no_link() -> None:
    with pytest.raises(ValueError, match="csat goes from 1 to 5"):
        link_token.make(SECRET, "default", SurveyLink(CONVERSATION, TICKET, "csat", 6, "en", NOW))
