"""Google Voice: voicemails, missed calls and texts, which come as mails. `mail_rules` reads them and names its sources.

There is no interface for programs. Mails that reach one of our mailboxes are recognised there by their proved sender; this
channel is for mails that are sent on purpose as such (offline, or by a route of their own). Best effort: the format is no
contract, and what is not recognised stays an ordinary mail. Nothing was tried against a live account.
"""

from services.ingest.adapters import email, mail_rules
from services.ingest.adapters.channel import Capability, Channel

CHANNEL = Channel(
    name="google_voice",
    parse=email.parse,
    settings=mail_rules.Settings,
    capability=Capability(can_reply=False, proof="DMARC of the mail that tells of it"),
)
