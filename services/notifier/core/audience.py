"""Who is told: whether there is an address that a mail can go to, in which language, from which of our senders."""

import re
from datetime import datetime

from schemas.ids import derive
from services.notifier.core.policy import OutageAudience, Policy, Sender
from services.notifier.core.state import Contact, Conversation

ADDRESS_LENGTH_MAX = 254  # RFC 5321 4.5.3.1.3: a path is at most 256 octets, brackets included.
LOCAL_LENGTH_MAX = 64  # RFC 5321 4.5.3.1.1.

_ADDRESS = re.compile(
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@(?P<domain>[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*)"
)
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_MACHINE = re.compile(
    r"(?:mailer-daemon|postmaster|bounces?|.*[._+-]bounces?"
    r"|(?:.*[._+-])?(?:no|do-?not|donot|do_not)[._-]?reply(?:[._+-].*)?)",
    re.IGNORECASE,
)


def mail_address(contact: Contact | None) -> str | None:
    """Return the address to mail, its domain in ASCII and lower case; None where there is none that is one.

    The whole string must be one plain dot-atom address (RFC 5322 3.4.1): parsers that pick an address out of a longer
    string have been made to pick the wrong one (CVE-2023-27043). A local part beyond ASCII needs SMTPUTF8 all the way
    to the customer, which we do not count on.
    """
    if contact is None or contact.address_kind != "email":
        return None
    local, at, domain = contact.address.strip().rpartition("@")
    try:
        address = f"{local}{at}{domain.encode('idna').decode()}" if domain else ""
    except UnicodeError:
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None or len(address) > ADDRESS_LENGTH_MAX or len(local) > LOCAL_LENGTH_MAX:
        return None
    return f"{local}@{found['domain'].lower()}"


def phone_number(contact: Contact | None) -> str | None:
    """Return the telephone number in E.164; None where there is none. Ingest writes numbers so where it can tell the country."""
    if contact is None or contact.address_kind != "phone":
        return None
    number = contact.address.strip()
    return number if _PHONE.fullmatch(number) else None


def is_machine(address: str) -> bool:
    """Whether nobody reads mail at `address`: answering it starts loops (RFC 3834 section 2)."""
    return _MACHINE.fullmatch(address.partition("@")[0]) is not None


def is_about_the_mail(status: str) -> bool:
    """Whether an enhanced status code (RFC 3463) speaks of a full mailbox, the way, the mail or a filter, and not of the address.

    A server that refuses our mail for good because of its content or our reputation says nothing of who lives there.
    """
    return re.match(r"5\.(?:2\.[234]|[34567]\.)", status) is not None


def is_ours(policy: Policy, address: str) -> bool:
    """Whether `address` is one that we send from ourselves, with or without a detail after `+`."""
    local, _, domain = address.lower().partition("@")
    return f"{local.partition('+')[0]}@{domain}" in policy.own_addresses


def language_of(policy: Policy, *wanted: str | None) -> str:
    """Return the first of `wanted` (ISO 639-1, regions ignored) that has templates, else the default language."""
    for language in wanted:
        primary = (language or "").replace("_", "-").partition("-")[0].lower()
        if primary in policy.languages:
            return primary
    return policy.default_language


def sender_of(policy: Policy, account: str) -> Sender:
    """Return the sender that answers for a channel's account, else the default one."""
    return policy.sender_by_account.get(account, policy.default_sender)


def is_concerned(
    audience: OutageAudience,
    conversation: Conversation,
    now: datetime,
    tags: frozenset[str] = frozenset(),
) -> bool:
    """Whether an outage is told in a conversation that was not named: by its open cases, or by when the customer last wrote.

    With `tags`, only where a case has one of them, or was counted under it as its cause.
    """
    if conversation.contact is None or audience.audience == "named":
        return False
    cases = [
        case for case in conversation.cases.values() if not tags or tags & {*case.tags, case.cause}
    ]
    if any(case.standing in ("open", "resting") and not case.is_closed for case in cases):
        return True
    wrote_at = conversation.wrote_at
    is_recent = wrote_at is not None and wrote_at > now - audience.recent
    return audience.audience == "recent" and is_recent and (bool(cases) or not tags)


def recipient_key(workspace: str, address: str) -> str:
    """Name a recipient in counts and tables without keeping the address there."""
    return derive("recipient", workspace, address.lower())
