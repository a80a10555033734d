"""Who wrote: addresses, and the customers behind them.

An address belongs to one customer, for ever or until somebody links it to another with proof. Two addresses are two
customers, however alike the names: a wrong merge shows one person's cases to another, and cannot be taken back.
"""

import unicodedata
from datetime import datetime
from typing import NamedTuple

from schemas import ids
from schemas.messages import Sender
from services.ingest.core.state import AddressKey, AddressRow, CustomerRow, Directory, Row


class Identified(NamedTuple):
    """The customer behind a sender, and the rows that make it so."""

    customer_id: str
    rows: tuple[Row, ...]


def normalise_address(kind: str, address: str) -> str:
    """Return the form in which an address is compared: mail in lower case, NFC; others as they are but trimmed."""
    trimmed = unicodedata.normalize("NFC", address.strip())
    return trimmed.lower() if kind == "email" else trimmed


def address_key(sender: Sender) -> AddressKey:
    """Return kind and normalised address of a sender."""
    return (sender.kind, normalise_address(sender.kind, sender.address))


def without_detail(address: str) -> str:
    """Return a mail address without its `+detail`, in lower case: `support+x@shop` is `support@shop`."""
    local, at, domain = address.strip().lower().rpartition("@")
    return f"{local.partition('+')[0]}{at}{domain}"


def identify(
    directory: Directory,
    workspace: str,
    sender: Sender,
    message_id: str,
    *,
    verified: bool,
    now: datetime,
) -> Identified:
    """Return whose message it is; a sender without an address is a customer of this one message only."""
    kind, address = address_key(sender)
    if kind == "none" or not address:
        customer_id = ids.customer_id(workspace, "none", message_id)
        return Identified(customer_id, (CustomerRow(customer_id, sender.name, now),))
    known = directory.addresses.get((kind, address))
    if known is None:
        customer_id = ids.customer_id(workspace, kind, address)
        return Identified(
            customer_id,
            (
                CustomerRow(customer_id, sender.name, now),
                AddressRow(kind, address, customer_id, verified, now),
            ),
        )
    customer_id, was_verified = known
    if verified and not was_verified:
        return Identified(customer_id, (AddressRow(kind, address, customer_id, True, now),))
    return Identified(customer_id, ())
