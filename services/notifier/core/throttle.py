"""How many automatic notices go out: whoever writes in another's name must not flood them, nor many others through us."""

from datetime import datetime

from schemas.notifications import Category
from services.notifier.core.known import UNVERIFIED, Known
from services.notifier.core.policy import Policy
from services.notifier.core.reason import Suppression


def over_cap(
    policy: Policy,
    known: Known,
    recipient: str,
    category: Category,
    is_verified: bool,
    now: datetime,
) -> Suppression | None:
    """Return the first cap that one more automatic notice to the recipient would pass, or None."""
    key = known.key(recipient)
    cap = (
        policy.verified_recipient_per_hour if is_verified else policy.unverified_recipient_per_hour
    )
    if known.count(key, now) >= cap:
        return Suppression.RECIPIENT_LIMIT if is_verified else Suppression.UNVERIFIED_LIMIT
    if not is_verified and known.count(UNVERIFIED, now) >= policy.unverified_total_per_hour:
        return Suppression.UNVERIFIED_TOTAL
    if known.is_crowded(now, policy.automatic_total_per_hour):
        return Suppression.WORKSPACE_LIMIT
    limit = policy.category_caps.get(category)
    if limit is not None and known.count(key, now, limit.window, category) >= limit.count:
        return Suppression.CATEGORY_LIMIT
    return None
