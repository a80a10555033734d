"""YouMail: voicemails and missed calls, which come as mails. `mail_rules` reads them.

YouMail documents no interface for others, and neither the sender nor the subjects of its mails: what is built in is a
guess to be corrected in the account's `rules` (`senders`, `subjects`, `cut_at`). What is not recognised stays an ordinary
mail. Nothing was tried against a live account.
"""

from services.ingest.adapters import email, mail_rules
from services.ingest.adapters.channel import Capability, Channel

CHANNEL = Channel(
    name="youmail",
    parse=email.parse,
    settings=mail_rules.Settings,
    capability=Capability(can_reply=False, proof="DMARC of the mail that tells of it"),
)
