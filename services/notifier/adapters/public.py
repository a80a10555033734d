"""What holds wherever everybody reads: reviews, comments, posts of a forum.

Only those occasions are told there that have words for the public (`public.txt` of a template), and only in these
words: a post made of them has no subject. Whatever else reaches a provider of a public place is refused, because
its words may hold a name, a reference or another fact of the customer's.
"""

from typing import Final

from schemas.notifications import Occasion
from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import refuse
from services.notifier.core.delivery import Delivered
from services.notifier.core.post import Post, Trouble

OCCASIONS: Final[frozenset[Occasion]] = frozenset({"received", "answered", "solved"})
"""What may be told where everybody reads."""

REVIEW_ID_MAX: Final = 200
"""Characters of a review's id at the vendor (an own bound)."""


def check(post: Post, vendor: str) -> None:
    """Do nothing for a post that everybody may read.

    Raises:
        Problem: it is none.
    """
    if post.occasion not in OCCASIONS:
        refuse(Trouble.MESSAGE, f"{vendor}: {post.occasion} is nothing to be told in public")
    if post.subject:
        refuse(
            Trouble.MESSAGE, f"{vendor}: these words were made for one person, not for everybody"
        )


def check_only_answer(post: Post, vendor: str, *, automatic: bool) -> None:
    """Do nothing for a post that may be the one answer which a review gets.

    Raises:
        Problem: it may not.
    """
    check(post, vendor)
    if post.is_automatic and not automatic:
        refuse(
            Trouble.MESSAGE,
            f"{vendor}: a review has one answer, which is left to a person (see `automatic`)",
        )


def review_of(post: Post, vendor: str) -> str:
    """Return the id of the review that is answered, as one segment of an address.

    Raises:
        Problem: it is not known.
    """
    if not 0 < len(post.thread) <= REVIEW_ID_MAX:
        refuse(Trouble.MESSAGE, f"{vendor}: the review to answer is not known")
    return helpdesk.segment(post.thread)


def replied(post: Post, outcome: str) -> Delivered:
    """Return that a review has our reply; no vendor tells an id of one, and a review has no second."""
    return Delivered(outcome, f"{post.thread}/reply")


def standing_reply(post: Post, standing: str, text: str, vendor: str) -> Delivered | None:
    """Return the reply to a review if it is ours already; None where `standing` is empty, and a reply may be written.

    Raises:
        Problem: another reply stands there.
    """
    if not standing:
        return None
    if not is_same(standing, text):
        refuse(Trouble.MESSAGE, f"{vendor}: the review has a reply, which is not written over")
    return replied(post, "stands there")


def found_reply(post: Post, standing: str) -> Delivered | None:
    """Return the reply to a review if `standing` has the post's words; None where it is another's, or empty."""
    if standing and is_same(standing, post.text):
        return replied(post, "found under the review")
    return None


def is_same(standing: str, text: str) -> bool:
    """Whether two texts read the same: a vendor may change blanks and line ends."""
    return helpdesk.compact(standing, is_html=False) == helpdesk.compact(text, is_html=False)
