"""Who is told: whether there is an address that a mail can go to, in which language, from which of our senders."""

import re

from schemas.ids import derive
from services.notifier.core.policy import Policy, Sender
from services.notifier.core.state import Contact

ADDRESS_LENGTH_MAX = 254  # RFC 5321 4.5.3.1.3: a path is at most 256 octets, brackets included.
LOCAL_LENGTH_MAX = 64  # RFC 5321 4.5.3.1.1.

_ADDRESS = re.compile(
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@(?P<domain>[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*)"
)
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


def is_machine(address: str) -> bool:
    """Whether nobody reads mail at `address`: answering it starts loops (RFC 3834 section 2)."""
    return _MACHINE.fullmatch(address.partition("@")[0]) is not None


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


def recipient_key(workspace: str, address: str) -> str:
    """Name a recipient in counts and tables without keeping the address there."""
    return derive("recipient", workspace, address.lower())
