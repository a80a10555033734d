"""Mail to people on call: RFC 5321 (the exchange), RFC 5322 section 3.6.4 (what makes a thread).

One thread an episode: all its mails refer to one name of the episode's own, and everything after the first answers to that
one, the end too. A Message-ID is made of what the mail is and says, so a mail that is sent again after a lost answer has the
same, by which mailboxes tell that it is the same, and no other mail has it.
"""

import hashlib
import ssl
from datetime import timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

import aiosmtplib
from aiosmtplib import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPConnectResponseError,
    SMTPException,
    SMTPHeloError,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from services.sla.adapters.sending import (
    SECONDS,
    Attempted,
    Delivered,
    Failed,
    Outside,
    Refused,
    SecretMissing,
    secret,
)
from services.sla.core.page_text import Message
from services.sla.core.pages import EmailReceiver

BUSY: Final = timedelta(minutes=1)
"""After 421, a server's "not now"."""


async def send(message: Message, receiver: EmailReceiver, outside: Outside) -> Attempted:
    """Hand the mail to the receiver's server."""
    del outside
    try:
        password = None if receiver.password is None else secret(receiver.password)
    except SecretMissing as error:
        return Failed(str(error))
    built = mail(message, receiver)
    ref = message.page.ref or str(built["Message-ID"])
    try:
        refused, _ = await aiosmtplib.send(
            built,
            sender=receiver.sender,
            recipients=list(receiver.to),
            hostname=receiver.host,
            port=receiver.port,
            username=receiver.user or None,
            password=password,
            use_tls=receiver.tls == "tls",
            start_tls=receiver.tls == "starttls",
            timeout=SECONDS,
        )
    except SMTPRecipientsRefused as error:
        codes = {one.code for one in error.recipients}
        return _refusal(
            min(codes), "every address"
        )  # One that may be tried again is enough to try.
    except SMTPAuthenticationError as error:
        if 400 <= error.code < 500:  # 454, "temporary authentication failure", and its like.
            return Failed(f"cannot check our login for now ({error.code})", retry_after=BUSY)
        return Refused(f"refused our login ({error.code})", "give `user` and `password` anew")
    except (SMTPConnectResponseError, SMTPHeloError) as error:
        return Failed(f"takes no mail now ({error.code})", retry_after=BUSY)
    except SMTPResponseException as error:
        return _refusal(error.code, "the mail")
    except SMTPConnectError as error:
        return Failed(f"cannot be reached ({type(error).__name__})")
    except (SMTPTimeoutError, SMTPServerDisconnected, TimeoutError) as error:
        return Failed(f"gave no answer ({type(error).__name__})", is_unknown=True)
    except ssl.SSLError as error:
        return Failed(f"TLS failed ({error.reason or 'unknown'})")
    except SMTPException as error:
        return Failed(f"does not offer what is set ({type(error).__name__})")
    except OSError as error:
        return Failed(f"broke the connection ({type(error).__name__})", is_unknown=True)
    if refused:
        # The others have it. Sending all of it again would double theirs.
        return Delivered(ref, remark=f"{len(refused)} of {len(receiver.to)} addresses refused")
    return Delivered(ref)


def _refusal(code: int, what: str) -> Attempted:
    """What a server's no to one mail comes to. A 4xx is for this mail: the next may go through, except after 421."""
    if code == 421:
        return Failed(f"refused {what} for now ({code})", retry_after=BUSY)
    if 400 <= code < 500:
        return Failed(f"refused {what} for now ({code})", is_of_message=True)
    return Refused(
        f"refused {what} ({code})", "check `to` and `sender`, and what the server lets them do"
    )


def mail(message: Message, receiver: EmailReceiver) -> EmailMessage:
    """The mail: plain text, so that every telephone shows it."""
    page, notice = message.page, message.notice
    domain = receiver.sender.rpartition("@")[2]
    thread = f"page.{page.group_key}.{page.episode}"
    root = f"<{thread}@{domain}>"
    lines = [notice.title, "", *notice.lines]
    if notice.link:
        lines += ["", f"Look: {notice.link}"]
    if notice.runbook:
        lines += ["", f"Runbook: {notice.runbook}"]
    text = "\n".join(lines) + "\n"
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    built = EmailMessage()
    built["From"] = receiver.sender
    built["To"] = ", ".join(receiver.to)
    built["Subject"] = notice.title if not page.number else f"Re: {notice.title}"
    built["Date"] = format_datetime(message.now)
    built["Message-ID"] = f"<{thread}.{page.number}.{message.saying}.{digest}@{domain}>"
    if page.number or page.is_begun:
        built["In-Reply-To"] = page.ref or root
    built["References"] = f"{root} {page.ref}".rstrip()
    built["Auto-Submitted"] = "auto-generated"
    built.set_content(text)
    return built
