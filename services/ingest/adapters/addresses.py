"""Mail addresses out of header fields (RFC 5322, 3.4; RFC 6531 for those beyond ASCII), read strictly.

An address is taken only where the whole of it is one: a field that several readers would read differently
(`alice@example.org)bob@evil.example`, CVE-2023-27043) names nobody. Encoded words are decoded after the address has
been found, never before, so that a name cannot smuggle in an address.
"""

import re
from typing import Final, NamedTuple

from services.ingest.adapters.mime import decode_words
from services.ingest.core.normalise import clean_value

ADDRESS_LENGTH_MAX: Final = 254
"""RFC 5321, 4.5.3.1.3, without the angle brackets."""
LOCAL_LENGTH_MAX: Final = 64
ADDRESSES_MAX: Final = 200
FIELD_LENGTH_MAX: Final = 40_000

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a1-\U0010ffff-]+"
_LABEL = (
    r"[A-Za-z0-9\u00a1-\U0010ffff](?:[A-Za-z0-9\u00a1-\U0010ffff_-]*[A-Za-z0-9\u00a1-\U0010ffff])?"
)
_ADDRESS: Final = re.compile(
    rf'(?P<local>{_ATOM}(?:\.{_ATOM})*\.?|"(?:[^"\\\x00-\x1f]|\\[\x20-\x7e])+")'
    rf"@(?P<domain>{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.IPv]+\])"
)
_NAMED: Final = re.compile(
    r"(?P<name>.*?)<\s*(?P<address>[^<>]*?)\s*>\s*(?:\([^()]*\))?\s*", re.DOTALL
)
_COMMENTED: Final = re.compile(r"\s*(?P<address>[^\s()<>]+)\s*(?:\((?P<name>[^()]*)\))?\s*")


class Mailbox(NamedTuple):
    """A name for people, and an address that is one beyond doubt."""

    name: str
    address: str


def is_address(text: str) -> bool:
    """Whether the whole of `text` is one mail address."""
    if len(text) > ADDRESS_LENGTH_MAX:
        return False
    found = _ADDRESS.fullmatch(text)
    return found is not None and len(found["local"]) <= LOCAL_LENGTH_MAX


def _split(field: str) -> list[str]:
    """Return a list field's members: commas and semicolons part them outside quotes, brackets and comments."""
    members: list[str] = []
    start = 0
    quoted = angle = False
    comment = 0
    index = 0
    while index < len(field):
        letter = field[index]
        if letter == "\\" and (quoted or comment):
            index += 1
        elif quoted:
            quoted = letter != '"'
        elif letter == '"' and not comment:
            quoted = True
        elif letter == "(":
            comment += 1
        elif letter == ")" and comment:
            comment -= 1
        elif letter == "<":
            angle = True
        elif letter == ">":
            angle = False
        elif letter in ",;" and not angle and not comment:
            members.append(field[start:index])
            start = index + 1
        elif letter == ":" and not angle and not comment and "@" not in field[start:index]:
            start = index + 1  # A group's name: `undisclosed-recipients:;`
        index += 1
    members.append(field[start:])
    return members


def _mailbox(member: str) -> Mailbox | None:
    text = member.strip()
    if not text or len(text) > 2 * ADDRESS_LENGTH_MAX + 1_000:
        return None
    found = _NAMED.fullmatch(text) or _COMMENTED.fullmatch(text)
    if found is None:
        return None
    address = found["address"].strip()
    if not is_address(address):
        return None
    name = (found["name"] or "").strip()
    if len(name) >= 2 and name.startswith('"') and name.endswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Mailbox(clean_value(decode_words(name), 255).strip("\"' "), address)


def read(field: str) -> list[Mailbox]:
    """Return the mailboxes a field names, those that can be read beyond doubt, in order."""
    found = (_mailbox(member) for member in _split(field[:FIELD_LENGTH_MAX])[:ADDRESSES_MAX])
    return [mailbox for mailbox in found if mailbox is not None]
