"""Why a notice was not sent, or is not sent yet, in words: each reason with the line of `notify.yaml` that decides it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from services.notifier.core.reason import Suppression, category_of


class Why(NamedTuple):
    """A reason in words. `path` is where `notify.yaml` decides it; empty where no line there does."""

    words: str
    path: str = ""


_SUPPRESSED: Final[Mapping[Suppression, Why]] = MappingProxyType(
    {
        Suppression.OCCASION_OFF: Why(
            "notices of this kind are turned off, or nobody has written them",
            "occasions.{occasion}",
        ),
        Suppression.CHANNEL_UNSUPPORTED: Why(
            "no account answers the channel that they wrote on, and no fall-back reaches them",
            "fall_back",
        ),
        Suppression.NO_ADDRESS: Why("there is no address that it could go to"),
        Suppression.OWN_ADDRESS: Why("the address is one of ours", "senders"),
        Suppression.AUTOMATIC_MESSAGE: Why("a machine wrote, and machines are not answered"),
        Suppression.TOO_MANY_AUTOMATIC: Why(
            "so many automatic notices went out since a person last wrote",
            "caps.automatic_between_human",
        ),
        Suppression.UNVERIFIED_LIMIT: Why(
            "nobody has proved that the address is theirs, and it had as many in the last hour",
            "caps.unverified_recipient_per_hour",
        ),
        Suppression.UNVERIFIED_TOTAL: Why(
            "unproved addresses together had as many in the last hour",
            "caps.unverified_total_per_hour",
        ),
        Suppression.RECIPIENT_LIMIT: Why(
            "the recipient had as many in the last hour", "caps.verified_recipient_per_hour"
        ),
        Suppression.SUPERSEDED: Why("something newer made it stale"),
        Suppression.CUSTOMER_ERASED: Why("the customer was erased"),
        Suppression.EXPIRED: Why("it came too late to be true or of use"),
        Suppression.OPTED_OUT: Why("the recipient wants no notices of this kind"),
        Suppression.NO_CONSENT: Why(
            "nobody gets these who has not asked for them", "consent.needed"
        ),
        Suppression.UNDELIVERABLE: Why("nothing reaches the address", "undeliverable"),
        Suppression.WINDOW_CLOSED: Why(
            "the vendor lets nobody write so long after the customer's last message, and no approved template stands for it",
            "accounts",
        ),
        Suppression.NOT_IN_PUBLIC: Why("everybody would read it, and it has no words for that"),
        Suppression.ONLY_ANSWER: Why(
            "a message gets one answer there, which is left to a person", "accounts"
        ),
        Suppression.CATEGORY_LIMIT: Why(
            "the recipient had as many of the kind lately", "caps.categories.{category}"
        ),
        Suppression.ASKED_LATELY: Why(
            "they were asked how it went not long ago", "survey.again_after_days"
        ),
        Suppression.TOLD_LATELY: Why(
            "they were told within the last seven days that a person looks at what made them unhappy"
        ),
        Suppression.WORKSPACE_LIMIT: Why(
            "all customers together had as many in the last hour", "caps.automatic_total_per_hour"
        ),
        Suppression.DIGESTED: Why(
            "it was told in a digest, together with others", "digest.occasions"
        ),
        Suppression.DRY_RUN: Why("it was rehearsed: nothing leaves in a dry run", "delivery"),
    }
)

_DEFERRED: Final[Mapping[str, Why]] = MappingProxyType(
    {
        "quiet_hours": Why("it is night for the customer", "quiet_hours.windows"),
        "digest": Why("it is gathered with others of the day", "digest.at"),
        "account_trouble": Why(
            "the account's credentials or settings are refused; the log line account_trouble says what to renew",
            "account_trouble.retry_minutes",
        ),
    }
)


def why_suppressed(reason: str, occasion: str) -> Why:
    """Return the reason of a suppression in words; one that this release does not know stands as it is."""
    found = _SUPPRESSED.get(Suppression(reason)) if reason in set(Suppression) else None
    if found is None:
        return Why(reason)
    path = found.path.format(occasion=occasion, category=category_of(occasion))
    return Why(found.words, path)


def why_deferred(reason: str) -> Why:
    """Return in words why a notice is told later."""
    return _DEFERRED.get(reason, Why(reason))
