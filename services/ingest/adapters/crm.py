"""A CRM's cases: our own signed JSON from any CRM, and Salesforce's SOAP Outbound Messages.

Sources: Standard Webhooks 1.0 for the signature; for Salesforce integrators' descriptions of Outbound Messages and the
standard fields of `Case`, `CaseComment` and `EmailMessage`. Salesforce signs nothing of its own, so a Flow or Apex callout
posts the JSON below:

    {"type": "case.created",
     "data": {"crm": "salesforce", "org_id": "00D…", "case_id": "500…", "case_number": "00014706", "subject": "…",
              "description": "…", "origin": "Email", "priority": "High", "status": "New",
              "contact": {"id": "003…", "email": "ada@example.com", "name": "Ada"}, "account_id": "001…",
              "created_at": "2026-11-20T09:15:00Z", "url": "https://…"}}

    {"type": "case.comment.created",
     "data": {"case_id": "500…", "comment": {"id": "00a…", "body": "…", "is_public": true, "from_customer": true,
              "author": {"id": "…", "email": "…", "name": "…"}, "created_at": "…"}, "contact": {…}}}

Verified: JSON with `webhook-signature` by Standard Webhooks (HMAC-SHA256 over id, time and body; five minutes). Where the
CRM cannot sign, a static header or the end of the address shows a token: `token`, or the `secret` itself unless that is a
signing secret (`whsec_…`). Such a request proves nothing about its content and `verified` stays false. An account that
signs should not have a `token`.

An Outbound Message can send no header and no signature, only its address: token at its end, and the `OrganizationId` in it
has to be the account's where `org_id` is set. It is answered with the SOAP acknowledgement, for Salesforce takes a bare 200
for a failure and repeats for up to a day. Its session id is a credential and is taken out before anything is stored. A
client certificate, where one is wanted, is checked by what stands before the gateway.

The XML is read with expat; a document type, and with it every entity, is refused, and depth and size are bounded.

Believed and not confirmed: the fields of `EmailMessage` in an Outbound Message, that a message holds at most a hundred
notifications. Nothing was tried against a live account.
"""

import re
import xml.parsers.expat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import addresses, reading, signing, standard_webhooks
from services.ingest.adapters.channel import (
    Answer,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)

SIGNING_PREFIX: Final = "whsec_"
NOTIFICATIONS_MAX: Final = 200
"""Notifications in one Outbound Message; Salesforce sends a hundred at most (believed)."""
DEPTH_MAX: Final = 12
"""Levels of XML; an Outbound Message has six."""
ELEMENTS_MAX: Final = 20_000
TEXT_MAX: Final = 200_000
"""Characters of one field; a case's description has 32 000."""

OUTBOUND: Final = "http://soap.sforce.com/2005/09/outbound"
"""The namespace of an Outbound Message."""
_XSI_TYPE: Final = "http://www.w3.org/2001/XMLSchema-instance type"
_SESSION: Final = re.compile(
    rb"(<(?:[A-Za-z_][\w.-]{0,30}:)?SessionId\b[^<>]{0,300}>)"
    rb"(?:<!\[CDATA\[[^\]]{0,8000}\]\]>|[^<]{0,8000})(?=</)"
)

ACKNOWLEDGED: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
    "<soapenv:Body>"
    f'<notificationsResponse xmlns="{OUTBOUND}"><Ack>true</Ack></notificationsResponse>'
    "</soapenv:Body></soapenv:Envelope>"
)
_SOAP_ANSWER: Final = Answer(200, {"Content-Type": "text/xml; charset=utf-8"}, ACKNOWLEDGED)

_STATUS: Final = frozenset({"case.updated", "case.closed", "case.reopened", "case.deleted"})


class Person(reading.Struct, frozen=True):
    """Whoever is named: a contact, or who wrote a comment."""

    id: str | int | None = None
    email: str | None = None
    name: str | None = None
    phone: str | None = None


class Comment(reading.Struct, frozen=True):
    """A comment on a case. `from_customer` says whose it is, `is_public` whether the customer sees it."""

    id: str | int | None = None
    body: str | None = None
    is_public: bool = True
    from_customer: bool = True
    author: Person | None = None
    created_at: str | int | float | None = None


class Case(reading.Struct, frozen=True):
    """A case, as our JSON has it. The `supplied_` fields are what a form's writer said of themselves."""

    crm: str | None = None
    org_id: str | None = None
    case_id: str | int | None = None
    case_number: str | int | None = None
    subject: str | None = None
    description: str | None = None
    origin: str | None = None
    priority: str | None = None
    status: str | None = None
    type: str | None = None
    reason: str | None = None
    contact: Person | None = None
    supplied_email: str | None = None
    supplied_name: str | None = None
    account_id: str | int | None = None
    created_at: str | int | float | None = None
    system_modstamp: str | int | float | None = None
    language: str | None = None
    url: str | None = None
    comment: Comment | None = None


class Incoming(reading.Struct, frozen=True):
    """What happened, and to which case."""

    type: str | None = None
    data: Case | None = None


class Settings(ChannelSettings):
    """A CRM. `secret` signs (`whsec_…`), or is the token that is shown; `own_ids` are the users' ids under which we write.

    `token` is shown by what cannot sign, an Outbound Message for one. `org_id` is the Salesforce organisation that Outbound
    Messages must come from (15 or 18 characters). `instance_url` is the organisation's address for people, for links to
    cases.
    """

    token: SecretReference | None = None
    org_id: str = Field(default="", pattern=r"^(?:[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?)?$")
    instance_url: str = ""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove a signature where there is one, else compare what is shown; an Outbound Message must name its organisation."""
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    if not signing.secrets_of(secrets, "secret", "previous_secret", "token"):
        return signing.refused("no_secret")
    if "webhook-signature" in request.headers and not _is_xml(request.body):
        verdict = standard_webhooks.verify_request(request, secrets, now)
        return replace(verdict, respond=Answer(200)) if verdict.accepted else verdict
    tokens = [
        secrets[name]
        for name in ("secret", "previous_secret", "token")
        if secrets.get(name) and not secrets[name].startswith(SIGNING_PREFIX)
    ]
    if not tokens:
        return signing.refused("missing_signature")
    # All are compared, so that the time taken does not tell which one was shown.
    if not any([signing.by_token(request, {"secret": one}).accepted for one in tokens]):  # noqa: C419
        return signing.refused("bad_token")
    if not _is_xml(request.body):
        return signing.shown()
    return _of_organisation(request.body, secrets.get("org_id", ""))


def _is_xml(body: bytes) -> bool:
    return body[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _of_organisation(body: bytes, org_id: str) -> Verdict:
    """Return the verdict on an Outbound Message whose token is right; without `org_id` any organisation's."""
    try:
        told = read_outbound(body).organisation
    except ParseError:
        return signing.refused("malformed", 400)
    # Salesforce writes ids with 15 characters, or with three more that only repeat their case.
    if org_id and not signing.same(org_id[:15], told[:15]):
        return signing.refused("bad_token", 403)
    return signing.shown(answer=_SOAP_ANSWER)


def parse(delivery: Delivery) -> Parsed:
    """Read our JSON, or a Salesforce Outbound Message with its notifications.

    Raises:
        ParseError: the body is neither, or something is missing; `field` names it.
    """
    if _is_xml(delivery.body):
        return _of_notifications(delivery, read_outbound(delivery.body))
    said = reading.json_as(delivery.body, Incoming)
    kind = said.type or ""
    if not kind:
        raise ParseError("invalid_field", "type: is missing", "type")
    if kind in _STATUS or kind == "ping":
        return _ignored(delivery, "ping" if kind == "ping" else "status")
    if kind not in ("case.created", "case.comment.created"):
        return _ignored(delivery, "unknown_event")
    if said.data is None:
        raise ParseError("invalid_field", "data: is missing", "data")
    if kind == "case.created":
        return _parsed(delivery, [_of_case(delivery, said.data)], [])
    return _of_comment(delivery, said.data)


def _ignored(delivery: Delivery, reason: str) -> Parsed:
    return Parsed(ignored=reason, verified=delivery.verified)


def _parsed(delivery: Delivery, found: list[MessageContent], reasons: list[str]) -> Parsed:
    if found:
        return Parsed(messages=tuple(found), verified=delivery.verified)
    order = ("echo", "internal_note", "not_a_message")
    first = next((one for one in order if one in reasons), None)
    return _ignored(delivery, first or (reasons[0] if reasons else "empty"))


def _of_case(delivery: Delivery, case: Case) -> MessageContent:
    case_id = reading.identifier(case.case_id, "data.case_id")
    settings = settings_of(delivery, Settings)
    return reading.content(
        delivery,
        case_id,
        _customer(case),
        reading.text_of(case.description) or reading.text_of(case.subject),
        subject=case.subject or "",
        occurred_at=case.created_at or case.system_modstamp,
        declared_language=case.language,
        thread=case_id,
        url=reading.link(case.url) or _page(settings, case_id),
        fields={
            "crm": case.crm or "",
            "case_number": str(case.case_number or ""),
            "origin": case.origin or "",
            "priority": case.priority or "",
            "status": case.status or "",
            "type": case.type or "",
            "reason": case.reason or "",
            "account_id": str(case.account_id or ""),
            "contact_id": str((case.contact or Person()).id or ""),
        },
    )


def _of_comment(delivery: Delivery, case: Case) -> Parsed:
    comment = case.comment
    if comment is None:
        raise ParseError("invalid_field", "data.comment: is missing", "data.comment")
    if not comment.is_public:
        return _ignored(delivery, "internal_note")
    settings = settings_of(delivery, Settings)
    author = comment.author or Person()
    if not comment.from_customer and {str(author.id), author.email or ""} & set(settings.own_ids):
        return _ignored(delivery, "echo")
    case_id = reading.identifier(case.case_id, "data.case_id")
    customer = _customer(case) if comment.from_customer or case.contact is not None else None
    sender = _person(author) or (customer if comment.from_customer else None)
    content = reading.content(
        delivery,
        reading.identifier(comment.id, "data.comment.id"),
        sender or Sender(name=author.name or "", address="", kind="none"),
        reading.text_of(comment.body),
        subject=case.subject or "",
        occurred_at=comment.created_at,
        declared_language=case.language,
        direction="inbound" if comment.from_customer else "outbound",
        recipients=() if comment.from_customer or customer is None else (customer.address,),
        thread=case_id,
        url=reading.link(case.url) or _page(settings, case_id),
        fields={"crm": case.crm or "", "case_number": str(case.case_number or "")},
    )
    return _parsed(delivery, [content], [])


def _person(person: Person) -> Sender | None:
    name = person.name or ""
    if person.email and addresses.is_address(person.email):
        return Sender(name=name, address=person.email, kind="email")
    if person.id is not None:
        return Sender(name=name, address=reading.identifier(person.id, "id"), kind="vendor_id")
    return None


def _customer(case: Case) -> Sender:
    """Return whose case it is: the contact by mail address, else who a form says wrote it, else the contact's id."""
    contact = case.contact or Person()
    supplied = Person(email=case.supplied_email, name=case.supplied_name)
    has_mail = bool(contact.email) and addresses.is_address(contact.email or "")
    found = _person(contact) if has_mail else (_person(supplied) or _person(contact))
    name = contact.name or case.supplied_name or ""
    return found or Sender(name=name, address="", kind="none")


def _page(settings: Settings, case_id: str) -> str | None:
    if not settings.instance_url or not case_id.isalnum():
        return None
    return reading.link(f"{settings.instance_url.rstrip('/')}/{case_id}")


# ------------------------------------------------------------------------------------------ SOAP


@dataclass(slots=True)
class Notification:
    """One notification: its own id, the kind of object, and the object's fields by name."""

    id: str = ""
    kind: str = ""
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outbound:
    """An Outbound Message: whose it is, and what it tells."""

    organisation: str = ""
    notifications: list[Notification] = field(default_factory=list)


def read_outbound(body: bytes) -> Outbound:
    """Return what an Outbound Message holds. Only its fixed places are read; everything else in it is left.

    Raises:
        ParseError: it is no such XML, has a document type, or is beyond the bounds.
    """
    reader = _Reader()
    reader.read(body)
    if not reader.is_outbound:
        raise ParseError("invalid_xml", "body: is no Salesforce Outbound Message", "body")
    return reader.found


class _Reader:
    """Walks an Outbound Message once, in linear time and bounded space."""

    def __init__(self) -> None:
        self.found = Outbound()
        self.is_outbound = False
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] = []
        self._size = 0

    def read(self, body: bytes) -> None:
        if b"\x00" in body:
            raise ParseError("invalid_encoding", "body: is not UTF-8", "body")
        # The encoding is set here, so that a declaration cannot choose one in which the session id would be overlooked.
        parser = xml.parsers.expat.ParserCreate("UTF-8", namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(body, True)
        except (xml.parsers.expat.ExpatError, ValueError) as error:
            if isinstance(error, ParseError):
                raise
            raise ParseError("invalid_xml", "body: is not well-formed XML", "body") from None

    def _refuse(self, *_: Any) -> None:
        raise ParseError("invalid_xml", "body: must have no document type and no entities", "body")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._path) >= DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise ParseError("invalid_xml", "body: has too many elements", "body")
        namespace, _, local = name.rpartition(" ")
        self._path.append(local)
        self._text, self._size = [], 0
        path = self._path
        if path[-1] == "notifications" and namespace == OUTBOUND:
            self.is_outbound = True
        if path[-2:] == ["notifications", "Notification"]:
            if len(self.found.notifications) >= NOTIFICATIONS_MAX:
                raise ParseError("too_many_events", "body: has too many notifications", "body")
            self.found.notifications.append(Notification())
        if path[-2:] == ["Notification", "sObject"] and self.found.notifications:
            self.found.notifications[-1].kind = attributes.get(_XSI_TYPE, "").rpartition(":")[2]

    def _characters(self, text: str) -> None:
        self._size += len(text)
        if self._size > TEXT_MAX:
            raise ParseError("field_too_long", "body: a field is too long", "body")
        self._text.append(text)

    def _end(self, _: str) -> None:
        path, text = self._path, "".join(self._text)
        self._text, self._size = [], 0
        if path[-2:] == ["notifications", "OrganizationId"]:
            self.found.organisation = text.strip()
        elif self.found.notifications:
            last = self.found.notifications[-1]
            if path[-3:] == ["notifications", "Notification", "Id"]:
                last.id = text.strip()
            elif path[-3:-1] == ["Notification", "sObject"]:
                last.fields.setdefault(path[-1], text)
        path.pop()


def _of_notifications(delivery: Delivery, told: Outbound) -> Parsed:
    found: list[MessageContent] = []
    reasons: list[str] = []
    for one in told.notifications:
        made = _of_notification(delivery, one)
        if isinstance(made, str):
            reasons.append(made)
        else:
            found.append(made)
    return _parsed(delivery, found, reasons)


def _of_notification(delivery: Delivery, one: Notification) -> MessageContent | str:
    """Return a notification's message, or why it is none."""
    get = one.fields.get
    if one.kind == "Case":
        case = Case(
            crm="salesforce",
            case_id=get("Id"),
            case_number=get("CaseNumber"),
            subject=get("Subject"),
            description=get("Description"),
            origin=get("Origin"),
            priority=get("Priority"),
            status=get("Status"),
            type=get("Type"),
            reason=get("Reason"),
            contact=Person(id=get("ContactId"), email=get("ContactEmail")),
            supplied_email=get("SuppliedEmail"),
            supplied_name=get("SuppliedName"),
            account_id=get("AccountId"),
            created_at=get("CreatedDate"),
            system_modstamp=get("SystemModstamp"),
        )
        return _of_case(delivery, case)
    if one.kind == "CaseComment":
        return _of_case_comment(delivery, one.fields)
    if one.kind == "EmailMessage":
        return _of_email_message(delivery, one.fields)
    return "unknown_event"


def _of_case_comment(delivery: Delivery, fields: Mapping[str, str]) -> MessageContent | str:
    """Return a published comment. Its writer is a user of the CRM, and so one of ours."""
    if fields.get("IsPublished") != "true":
        return "internal_note"
    settings = settings_of(delivery, Settings)
    writer = fields.get("CreatedById", "")
    if writer in settings.own_ids:
        return "echo"
    case_id = reading.identifier(fields.get("ParentId"), "ParentId")
    return reading.content(
        delivery,
        reading.identifier(fields.get("Id"), "Id"),
        Sender(address=writer[:200], kind="vendor_id" if writer else "none"),
        reading.text_of(fields.get("CommentBody")),
        occurred_at=fields.get("CreatedDate"),
        direction="outbound",
        thread=case_id,
        url=_page(settings, case_id),
        fields={"crm": "salesforce"},
    )


def _of_email_message(delivery: Delivery, fields: Mapping[str, str]) -> MessageContent | str:
    """Return a mail that stands in a case."""
    settings = settings_of(delivery, Settings)
    address = fields.get("FromAddress", "")
    is_theirs = fields.get("Incoming") == "true"
    if not is_theirs and {address, fields.get("CreatedById", "")} & set(settings.own_ids):
        return "echo"
    case_id = reading.identifier(fields.get("ParentId"), "ParentId")
    is_mail = addresses.is_address(address)
    return reading.content(
        delivery,
        reading.identifier(fields.get("Id"), "Id"),
        Sender(
            name=fields.get("FromName", ""),
            address=address if is_mail else "",
            kind="email" if is_mail else "none",
        ),
        reading.text_of(fields.get("TextBody"), fields.get("HtmlBody")),
        subject=fields.get("Subject", ""),
        occurred_at=fields.get("MessageDate") or fields.get("CreatedDate"),
        direction="inbound" if is_theirs else "outbound",
        recipients=tuple(one.address for one in addresses.read(fields.get("ToAddress", "")))[:50],
        thread=case_id,
        url=_page(settings, case_id),
        fields={"crm": "salesforce"},
    )


def scrub(body: bytes) -> bytes:
    """Return a body without the session id that Salesforce puts into it: whoever has it can act in the organisation."""
    return _SESSION.sub(rb"\1", body) if _is_xml(body) else body


CHANNEL = Channel(
    name="crm",
    parse=parse,
    settings=Settings,
    verify=verify,
    scrub=scrub,
    media_types=frozenset(
        {"application/json", "text/xml", "application/xml", "application/soap+xml"}
    ),
    capability=Capability(
        proof="Standard Webhooks signature; shared token where the CRM cannot sign"
    ),
)
