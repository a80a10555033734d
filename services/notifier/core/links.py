"""The links in notices: an answer to a survey by one click, and the way out of a kind of notices.

Owns their addresses. What is in them is `schemas.link_token`'s, the pages behind them are the gateway's.
"""

from dataclasses import dataclass
from datetime import datetime

from schemas.feedback import SurveyKind
from schemas.link_token import SurveyLink, WishLink, make
from schemas.notifications import Category
from schemas.survey_words import QUESTIONS, label, scores
from services.notifier.core.consent import OPTIONAL
from services.notifier.core.facts import ChoiceFacts, SurveyFacts
from services.notifier.core.policy import Policy
from services.notifier.core.reason import CATEGORIES

SURVEY_PATH = "/v1/feedback/"
WISH_PATH = "/v1/unsubscribe/"


@dataclass(frozen=True, slots=True)
class Links:
    """Makes links to the gateway at `base_url` (`https://in.example.com`; empty: there are none), signed with `secret`."""

    secret: bytes
    workspace: str
    base_url: str

    def survey(
        self, conversation_id: str, ticket_id: str, kind: SurveyKind, language: str, now: datetime
    ) -> SurveyFacts | None:
        """Return the question about a ticket, with one link for each score and one that asks; None where no address of ours is known."""
        if not self.base_url:
            return None
        spoken = language if language in QUESTIONS else "en"
        choices = tuple(
            ChoiceFacts(
                label(kind, score, spoken),
                self._address(
                    SURVEY_PATH, SurveyLink(conversation_id, ticket_id, kind, score, spoken, now)
                ),
            )
            for score in scores(kind)
        )
        url = self.ask(conversation_id, ticket_id, kind, spoken, now)
        return SurveyFacts(kind, QUESTIONS[spoken][kind], choices, url)

    def ask(
        self, conversation_id: str, ticket_id: str, kind: SurveyKind, language: str, now: datetime
    ) -> str:
        """Return the one link that asks, for where eleven do not fit (SMS); empty where no address of ours is known."""
        if not self.base_url:
            return ""
        return self._address(
            SURVEY_PATH, SurveyLink(conversation_id, ticket_id, kind, None, language, now)
        )

    def unsubscribe(
        self,
        conversation_id: str,
        recipient: str,
        category: Category,
        language: str,
        now: datetime,
    ) -> str:
        """Return the link out of a category for `recipient` (`audience.recipient_key`), and back in.

        It is for a person, and for `List-Unsubscribe` with `List-Unsubscribe-Post` (RFC 8058): a POST to it suffices. Empty
        where no address of ours is known.
        """
        if not self.base_url:
            return ""
        return self._address(
            WISH_PATH, WishLink(conversation_id, recipient, category, language, now)
        )

    def _address(self, path: str, link: SurveyLink | WishLink) -> str:
        return f"{self.base_url.rstrip('/')}{path}{make(self.secret, self.workspace, link)}"


def without_way_out(policy: Policy, base_url: str) -> tuple[str, ...]:
    """Return the occasions of which mails tell although nobody can have no more of them by one click.

    List-Unsubscribe needs an https address (RFC 8058, section 3.1), and by mail no word is taken for STOP. Surveys are not among
    them: without an address of ours they are not sent at all.
    """
    if base_url.startswith("https://"):
        return ()
    return tuple(
        occasion
        for occasion, category in CATEGORIES.items()
        if category in OPTIONAL and occasion != "survey" and occasion not in policy.occasions_off
    )
