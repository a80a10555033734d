"""Reports about mail of ours: delivery reports (RFC 3464), the free forms that servers send in their place, read receipts.

Sources of the outside facts: RFC 3464 and 6533 (delivery reports), RFC 3463 (status codes), RFC 6522 (multipart/report),
RFC 8098 (read receipts), RFC 5965 (abuse reports); the free forms are those of qmail, Exim, Postfix, sendmail, Exchange
(English, Turkish, Russian, German, French, Spanish), Gmail, Yahoo, Mail.ru and Yandex.

A report that names several recipients tells the first that failed in `bounce`, and all of them in
`fields["bounce_recipients"]`. `fields["bounce_action"]` is `failed` or `delayed`: only the first is the end of a mail.
"""

import re
from dataclasses import dataclass
from typing import Final

from schemas.messages import Bounce
from services.ingest.adapters import addresses, mime
from services.ingest.adapters.mime import Part
from services.ingest.core.normalise import clean_value

RECIPIENTS_MAX: Final = 20
TEXT_LOOKED_AT: Final = 20_000

_STATUS_IN: Final = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REPLY_CODE_IN: Final = re.compile(r"(?<![\d.-])([45])\d\d[ -](?=\D)")
_ADDRESS_IN: Final = re.compile(r"[^\s<>()\[\],;:\"'@=*]{1,64}@[A-Za-z0-9\u00a1-\uffff.-]{1,189}")
_MESSAGE_ID: Final = re.compile(r"<\s*([^<>\s]{1,998})\s*>")
_ID_LINE: Final = re.compile(
    r"^[> \t]*message-id:\s*(<[^<>\s]{1,998}>)", re.IGNORECASE | re.MULTILINE
)
_FINAL_LINE: Final = re.compile(
    r"^[> \t]*(?:final|original)-recipient:[^\n;]{0,40};\s*<?([^<>\s]{3,254})",
    re.IGNORECASE | re.MULTILINE,
)
_MAILER: Final = re.compile(
    r"^(?:mailer-daemon|postmaster|mailerdaemon|mail-daemon|mailer|mdaemon|mailsystem|mail\.daemon|bounces?|"
    r"microsoftexchange[0-9a-f]{8,40})(?:[+._-][^@]{0,80})?@",
    re.IGNORECASE,
)
_SUBJECT: Final = re.compile(
    r"(?:undeliver|returned mail|delivery (?:status notification|failure|has failed|report|notification|incomplete|delayed)"
    r"|mail delivery (?:failed|failure|system)|failure notice|failed delivery|mail failure|mail could not be delivered"
    r"|returned to sender|non[- ]?delivery|could not deliver|message you sent blocked|warning: (?:message|could not send)"
    r"|iletilemedi|teslim edilemedi|teslim edilemeyen|gönderilemedi|ulaştırılamadı"
    r"|не ?доставлен|недоставлен|невозможно доставить|не удается доставить|не удаётся доставить|не удалось доставить"
    r"|сообщение о недоставке|отчет о доставке|отчёт о доставке"
    r"|unzustellbar|nicht zustellbar|nicht zugestellt|zustellung fehlgeschlagen|zurückgewiesen"
    r"|non remis|échec de la remise|non distribué|échec de distribution"
    r"|no se puede entregar|no se ha podido entregar|no entregado|error de entrega)",
    re.IGNORECASE,
)
_TEXT: Final = re.compile(
    r"(?:this is the qmail-send program|this message was created automatically by mail delivery software"
    r"|this is the mail system at host|delivery has failed to these recipients|could not be delivered|couldn't be delivered"
    r"|wasn't delivered to|unable to deliver|delivery to the following recipient|your message did not reach"
    r"|had permanent fatal errors|had transient non-fatal errors|has been delayed|permanent(?:ly)? (?:error|fail)"
    r"|не может быть доставлено|не было доставлено|не доставлено|не удалось доставить|доставить (?:ваше )?(?:письмо|сообщение)"
    r"|teslim edilemedi|iletilemedi|teslim başarısız"
    r"|konnte nicht zugestellt werden|n'a pas pu être remis|no se pudo entregar)",
    re.IGNORECASE,
)
_DELAYED: Final = re.compile(
    r"(?:\(delay\)|delayed|delivery incomplete|transient non-fatal|will (?:be retried|retry|keep trying|continue trying)"
    r"|gecik|ertelendi|задержан|задержк|повторн\w+ попыт|verzögert|retardé|retrasad)",
    re.IGNORECASE,
)
_COPY_BEGINS: Final = re.compile(
    r"^(?:-{2,}+|={2,}+|\*{2,}+).{0,80}(?:copy of|original message|returned message|header|исходн|копия|özgün|orijinal|kopya)"
    r"|^(?:original message headers|received: |return-path: |исходные заголовки)",
    re.IGNORECASE | re.MULTILINE,
)
_REPORT_TYPES: Final = ("message/delivery-status", "message/global-delivery-status")
_COPY_TYPES: Final = (
    "message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers", "message/rfc822-headers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says. `bounce` is None where it tells of no failure; `original` is the Message-ID it is about."""

    bounce: Bounce | None
    original: str | None
    fields: dict[str, str]
    reason: str


def find(mail: Part, *media_types: str) -> Part | None:
    """Return the first part of one of these types."""
    return next((leaf for leaf in mail.leaves() if leaf.media_type in media_types), None)


def report_type(mail: Part) -> str | None:
    """Return the kind of report a mail is (RFC 6522), if it is one."""
    for part in (mail, *mail.children):
        if part.media_type == "multipart/report":
            kind = part.parameters.get("report-type", "").strip().lower()
            if kind:
                return kind
    if find(mail, *_REPORT_TYPES) is not None:
        return "delivery-status"
    if find(mail, "message/disposition-notification", "message/global-disposition-notification"):
        return "disposition-notification"
    if find(mail, "message/feedback-report") is not None:
        return "feedback-report"
    return None


def _blocks(report: Part) -> list[dict[str, str]]:
    """Return the groups of fields of a report's machine part; the first value of a name counts in each."""
    header = report.head(mime.HEADER_BYTES_MAX).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    made: list[dict[str, str]] = []
    for block in re.split(rb"\n[ \t]*\n", header)[: 4 * RECIPIENTS_MAX]:
        fields: dict[str, str] = {}
        for name, value in mime.read_fields(block.lstrip(b"\n")):
            fields.setdefault(name, value)
        if fields:
            made.append(fields)
    return made


def _typed(value: str) -> str:
    """Return the address of `rfc822; someone@example.com`."""
    shown = clean_value(value.partition(";")[2] or value, 300).strip("<> ")
    found = _ADDRESS_IN.search(shown)
    return found.group(0) if found is not None and not addresses.is_address(shown) else shown[:254]


def _status_in(text: str) -> str | None:
    found = _STATUS_IN.search(text)
    if found is not None:
        return found.group(1)
    coded = _REPLY_CODE_IN.search(text)
    return f"{coded.group(1)}.0.0" if coded is not None else None


def _original(mail: Part, text: str) -> str | None:
    returned = find(mail, *_COPY_TYPES)
    if returned is not None:
        header = mime.header_of(returned.head(mime.HEADER_BYTES_MAX))
        for name, value in mime.read_fields(header):
            found = _MESSAGE_ID.search(clean_value(value)) if name == "message-id" else None
            if found is not None:
                return f"<{found.group(1)}>"
    named = _ID_LINE.search(text[:TEXT_LOOKED_AT])
    return named.group(1) if named is not None else None


def _of_status(mail: Part, text: str) -> Report:
    """Read a delivery report by its machine part."""
    part = find(mail, *_REPORT_TYPES)
    told: list[tuple[str, str, str | None]] = []
    for fields in _blocks(part) if part is not None else []:
        recipient = fields.get("original-recipient") or fields.get("final-recipient")
        if recipient is None and "action" not in fields:
            continue
        status = _status_in(fields.get("status", "")) or _status_in(
            fields.get("diagnostic-code", "")
        )
        action = fields.get("action", "").partition("(")[0].strip().lower()
        if not action:
            action = "delayed" if (status or "").startswith("4") else "failed"
        told.append((action, _typed(recipient or ""), status))
    original = _original(mail, text)
    failed = [one for one in told if one[0] not in ("delivered", "relayed", "expanded")]
    if told and not failed:
        return Report(None, original, {"delivery_action": told[0][0]}, "delivery_report")
    failed.sort(key=lambda one: one[0] != "failed")  # Stable: failures first, each as told.
    action, recipient, status = failed[0] if failed else ("failed", "", None)
    fields = {"bounce_action": "delayed" if action == "delayed" else "failed"}
    if len(failed) > 1:
        fields["bounce_recipients"] = ", ".join(
            f"{address} {code or action}" for _, address, code in failed[:RECIPIENTS_MAX]
        )
    bounce = Bounce(recipient=recipient or _named_in(text, ()), status=status or _status_in(text))
    return Report(bounce, original, fields, "bounce")


def _named_in(text: str, passed_over: tuple[str, ...]) -> str | None:
    """Return the first address that a report's own words name."""
    final = _FINAL_LINE.search(text)
    if final is not None and addresses.is_address(final.group(1)):
        return final.group(1)
    for found in _ADDRESS_IN.finditer(text):
        address = found.group(0).rstrip(".-")
        if (
            addresses.is_address(address)
            and "." in address.rpartition("@")[2]
            and address.lower() not in passed_over
            and _MAILER.match(address) is None
        ):
            return address
    return None


def _own_words(text: str) -> str:
    """Return a report's text without the copy of our mail below it."""
    looked_at = text[:TEXT_LOOKED_AT]
    copy = _COPY_BEGINS.search(looked_at)
    own = looked_at[: copy.start()] if copy is not None and copy.start() > 0 else looked_at
    return _ID_LINE.sub("", own)


def _free_form(
    mail: Part, sender: str, subject: str, text: str, own_addresses: frozenset[str], is_null: bool
) -> Report | None:
    failed = [
        mailbox.address
        for field in mail.all("x-failed-recipients")
        for mailbox in addresses.read(field)
    ]
    is_daemon = _MAILER.match(sender) is not None
    is_said = _SUBJECT.search(subject) is not None
    is_machine = is_daemon or is_null
    if (
        not failed
        and not (is_machine and (is_said or _TEXT.search(text[:TEXT_LOOKED_AT])))
        and not (is_daemon and is_null)
    ):
        return None
    words = _own_words(text)
    passed_over = tuple({sender.lower(), *own_addresses})
    recipient = failed[0] if failed else _named_in(words, passed_over)
    status = _status_in(words)
    is_delayed = (status or "4").startswith("4") and (
        _DELAYED.search(subject) is not None or _DELAYED.search(words[:2_000]) is not None
    )
    fields = {"bounce_action": "delayed" if is_delayed else "failed"}
    if len(failed) > 1:
        fields["bounce_recipients"] = ", ".join(failed[:RECIPIENTS_MAX])
    if status is None and is_delayed:
        status = "4.0.0"
    return Report(
        Bounce(recipient=recipient, status=status), _original(mail, text), fields, "bounce"
    )


def _of_receipt(mail: Part) -> Report:
    part = find(mail, "message/disposition-notification", "message/global-disposition-notification")
    fields = {
        name: value for block in (_blocks(part) if part else []) for name, value in block.items()
    }
    found = _MESSAGE_ID.search(clean_value(fields.get("original-message-id", "")))
    disposition = fields.get("disposition", "").rpartition(";")[2].partition("/")[0].strip().lower()
    told = {"read_receipt": clean_value(disposition, 40)} if disposition else {}
    return Report(None, f"<{found.group(1)}>" if found is not None else None, told, "read_receipt")


def read(
    mail: Part,
    sender: str,
    subject: str,
    text: str,
    *,
    own_addresses: frozenset[str] = frozenset(),
    is_null_path: bool = False,
) -> Report | None:
    """Return what a report says; None for mail that is no report."""
    kind = report_type(mail)
    if kind == "delivery-status":
        return _of_status(mail, text)
    if kind == "disposition-notification":
        return _of_receipt(mail)
    if kind == "feedback-report":
        return Report(None, _original(mail, text), {}, "abuse_report")
    return _free_form(mail, sender, subject, text, own_addresses, is_null_path)
