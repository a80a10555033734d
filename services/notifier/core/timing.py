"""When notices go out by themselves: before a promise breaks, after a case is solved, and how long trouble is waited out.

The values stand in `notify.yaml`; these are the defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class NextIssue:
    """What usually comes next after a solved case, and the article for it by language: title, address, summary."""

    after: timedelta
    articles: Mapping[str, tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Timing:
    """`still_on_it_before` a told promise breaks the customer hears that we are at it, if half of it is over by then.

    `next_issues` are by the cause that a case was solved with; `check_in_after` and `survey_after` count from the solution
    (None: never). `topics` name what a case is about, by its causes and tags. While an account's credentials fail, messages
    are tried every `account_retry`, for `account_patience` at most.
    """

    still_on_it_before: timedelta = timedelta(minutes=30)
    next_issues: Mapping[str, NextIssue] = field(default_factory=lambda: MappingProxyType({}))
    check_in_after: timedelta | None = None
    survey_after: timedelta | None = None
    topics: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    account_retry: timedelta = timedelta(minutes=15)
    account_patience: timedelta = timedelta(days=2)
