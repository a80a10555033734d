"""What holds wherever everybody reads: reviews, comments, posts of a forum.

Only those occasions are told there that have words for the public (`public.txt` of a template), and only in these
words: a post made of them has no subject. Whatever else reaches a provider of a public place is refused, because
its words may hold a name, a reference or another fact of the customer's.
"""

from typing import Final

from schemas.notifications import Occasion
from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import refuse
from services.notifier.core.post import Post, Trouble

OCCASIONS: Final[frozenset[Occasion]] = frozenset({"received", "answered", "solved"})
"""What may be told where everybody reads."""


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


def is_same(standing: str, text: str) -> bool:
    """Whether two texts read the same: a vendor may change blanks and line ends."""
    return "".join(helpdesk.visible(standing, is_html=False).split()) == "".join(
        helpdesk.visible(text, is_html=False).split()
    )
