"""Who wrote: addresses, how they were proved, and the customers behind them.

An address belongs to one customer from the beginning and for ever; where that customer leads to is another matter (see
`customers`). Two addresses are two customers, however alike the names, until evidence or a person says otherwise.

Mail addresses and phone numbers mean the same everywhere. A vendor's id means something in that vendor's account only:
its key is `channel/account/id`, so that a Telegram id is never taken for a Messenger id.
"""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

import phonenumbers

from schemas import ids
from schemas.customers import Proof
from schemas.messages import MessageContent, Sender
from services.ingest.core.state import AddressKey, AddressRow, CustomerRow, Directory, Known, Row

NAMES_MAX: Final = 5
"""Names remembered of an address; nobody needs to know more of one that is shared."""

NAME_LENGTH_MAX: Final = 80
ADDRESS_LENGTH_MAX: Final = 320
CLAIMS_MAX: Final = 4
"""Addresses told beside a sender's own that are looked at, of each kind."""

PROOFS: Final[tuple[Proof, ...]] = (
    "none",
    "order",
    "vendor",
    "vendor_verified",
    "signed_channel",
    "dmarc",
    "identity_token",
    "operator",
)
PROVED: Final = frozenset(PROOFS[PROOFS.index("vendor_verified") :])
"""Proofs good enough to merge customers without asking anybody."""

SIGNED_CHANNELS: Final = frozenset(
    {
        "apple_messages",
        "facebook_page",
        "instagram",
        "messenger",
        "slack",
        "telegram",
        "whatsapp",
        "x",
    }
)
"""Channels that carry the writer's id themselves. SMS is none: a sender's number can be forged, and so can a caller's."""

CLAIM_FIELDS: Final[Mapping[str, str]] = {
    "email": "email",
    "customer_email": "email",
    "phone": "phone",
    "customer_phone": "phone",
}
"""Fields of a message that hold another address of its writer, and that address' kind."""

ATTESTED: Final = frozenset({("telegram", "phone")})
"""Fields that the vendor itself vouches for. Telegram gives a number only if it is the sender's own contact."""

ORDER_FIELDS: Final = ("order", "order_number")


class Claim(NamedTuple):
    """An address that a message tells of its writer, beside the one it came from."""

    key: AddressKey
    is_attested: bool


class Identified(NamedTuple):
    """The customer of the address, where they lead to, the address' key (empty: none), and the rows that make it so."""

    origin_id: str
    customer_id: str
    key: AddressKey
    rows: tuple[Row, ...]


def normalise_address(kind: str, address: str, region: str = "") -> str:
    """Return the form in which an address is compared: NFC, mail in lower case, phones in E.164.

    `region` (ISO 3166-1 alpha-2) is where a number without country code is from; what is no number stays as it is.
    """
    trimmed = unicodedata.normalize("NFC", address.strip())
    if kind == "email":
        return trimmed.lower()
    return (e164(trimmed, region) or trimmed) if kind == "phone" else trimmed


@lru_cache(maxsize=4096)
def e164(number: str, region: str = "") -> str | None:
    """Return a phone number as E.164 (`+905321234567`), or None where it can be none in any country's plan."""
    if len(number) > 40:
        return None
    try:
        parsed = phonenumbers.parse(number, region or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def address_key(sender: Sender) -> AddressKey:
    """Return kind and address of a sender as compared within one account; see `owner_key` for the whole world."""
    return (sender.kind, normalise_address(sender.kind, sender.address))


def owner_key(content: MessageContent, region: str = "") -> AddressKey:
    """Return the key under which a message's sender is known; its address is empty where there is none."""
    sender = content.sender
    address = normalise_address(sender.kind, sender.address, region)
    if sender.kind == "vendor_id" and address:
        return (sender.kind, f"{content.channel}/{content.account}/{address}")
    return (sender.kind, "" if sender.kind == "none" else address)


def address_within(content: MessageContent, key: AddressKey) -> str:
    """Return the address of a key as it is written in the message's own account: the reverse of `owner_key`."""
    kind, address = key
    scope = f"{content.channel}/{content.account}/"
    return address.removeprefix(scope) if kind == "vendor_id" else address


def without_detail(address: str) -> str:
    """Return a mail address without its `+detail`, in lower case: `support+x@shop` is `support@shop`."""
    local, at, domain = address.strip().lower().rpartition("@")
    return f"{local.partition('+')[0]}{at}{domain}"


def fold_name(name: str) -> str:
    """Return a name as it is compared: case, accents' forms and spacing do not count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())[:NAME_LENGTH_MAX]


def proof_of(content: MessageContent, *, verified: bool) -> Proof:
    """Return what a message proves about the address it came from. `verified` is what its channel found out."""
    if not verified or content.direction == "outbound" or content.call is not None:
        return "none"
    match content.channel, content.sender.kind:
        case (("email" | "gmail"), "email"):
            return "dmarc"
        case "webchat", "email":
            return "identity_token"
        case channel, ("vendor_id" | "phone") if channel in SIGNED_CHANNELS:
            return "signed_channel"
        case _, "none":
            return "none"
        case _:
            return "vendor"


def stronger(one: Proof, other: Proof) -> Proof:
    """Return the stronger of two proofs."""
    return max(one, other, key=PROOFS.index)


def claims_of(content: MessageContent, region: str = "") -> tuple[Claim, ...]:
    """Return the addresses that a customer's message tells beside its sender's, each once."""
    if not content.fields or content.direction == "outbound" or content.kind == "bounce":
        return ()
    own = owner_key(content, region)
    found: dict[AddressKey, bool] = {}
    for field, kind in CLAIM_FIELDS.items():
        told = content.fields.get(field, "").strip()
        if not told or len(told) > ADDRESS_LENGTH_MAX:
            continue
        if kind == "email":
            local, at, domain = told.rpartition("@")
            address = normalise_address(kind, told) if local and at and "." in domain else None
        else:
            address = e164(told, region)
        if address is not None and (kind, address) != own:
            is_attested = (content.channel, field) in ATTESTED
            found[kind, address] = found.get((kind, address), False) or is_attested
    return tuple(Claim(key, attested) for key, attested in list(found.items())[:CLAIMS_MAX])


def orders_of(content: MessageContent) -> tuple[str, ...]:
    """Return the numbers of orders that a message names in its fields, without a leading `#`."""
    told = (content.fields.get(name, "").strip().lstrip("#")[:100] for name in ORDER_FIELDS)
    return tuple(dict.fromkeys(number for number in told if number))


def root_of(directory: Directory, customer_id: str) -> str:
    """Return where a customer leads to: themselves, unless they were merged."""
    while True:
        one = directory.customers.get(customer_id)
        if one is None or one.merged_into is None:
            return customer_id
        customer_id = one.merged_into


def members_of(directory: Directory, customer_id: str) -> tuple[str, ...]:
    """Return a customer and all who lead to them, the customer first, then in the order of their ids."""
    found = [customer_id]
    for one in found:
        found.extend(sorted(directory.children.get(one, ())))
    return tuple(found)


def identify(
    directory: Directory,
    workspace: str,
    content: MessageContent,
    message_id: str,
    *,
    verified: bool,
    now: datetime,
    region: str = "",
) -> Identified:
    """Return whose message it is; a sender without an address is a customer of this one message only."""
    sender = content.sender
    key = owner_key(content, region)
    kind, address = key
    if not address:
        customer_id = ids.customer_id(workspace, "none", message_id)
        row = CustomerRow(customer_id, sender.name, now)
        return Identified(customer_id, customer_id, key, (row,))
    proof = proof_of(content, verified=verified)
    name = fold_name(sender.name)
    known = directory.addresses.get(key)
    if known is None:
        customer_id = ids.customer_id(workspace, kind, address)
        names = (name,) if name else ()
        rows: tuple[Row, ...] = (
            CustomerRow(customer_id, sender.name, now),
            AddressRow(kind, address, customer_id, verified, now, proof, names),
        )
        return Identified(customer_id, root_of(directory, customer_id), key, rows)
    root = root_of(directory, known.customer_id)
    return Identified(
        known.customer_id, root, key, _learned(key, known, proof, name, verified, now)
    )


def _learned(
    key: AddressKey, known: Known, proof: Proof, name: str, verified: bool, now: datetime
) -> tuple[Row, ...]:
    """Return the address' row where a message proves more than was known, or gives another name."""
    best = stronger(known.proof, proof)
    is_new_name = bool(name) and name not in known.names and len(known.names) < NAMES_MAX
    names = (*known.names, name) if is_new_name else known.names
    is_verified = known.is_verified or verified
    if (best, names, is_verified) == (known.proof, known.names, known.is_verified):
        return ()
    return (AddressRow(*key, known.customer_id, is_verified, now, best, names),)
