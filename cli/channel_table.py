"""`docs/channels/README.md`: the table of channels, made from the adapters and the tests beside them."""

import json
from pathlib import Path
from typing import Final

from services.ingest.adapters import CHANNELS
from services.ingest.adapters.channel import Channel

PAGE: Final = Path("docs/channels/README.md")
FIXTURES: Final = Path("tests/fixtures/ingest")
FAKES: Final = Path("tests/fakes")

FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "Mail": ("email", "gmail", "google_voice", "youmail"),
    "Helpdesks and CRM": (
        "zendesk", "helpscout", "gorgias", "edesk", "hubspot", "freshdesk", "zoho", "intercom", "crm",
    ),
    "Social": ("messenger", "facebook_page", "instagram", "whatsapp", "x", "hootsuite", "sprout"),
    "Chat and shops": (
        "apple_messages", "olark", "chatra", "tidio", "livechat", "telegram", "slack", "shopify",
    ),
    "Voice": ("twilio_sms", "twilio_voice", "aircall", "voip"),
    "Reviews and forums": ("google_reviews", "trustpilot", "yelp", "app_store", "discourse"),
    "Our own": ("webchat", "form", "event", "message", "csv"),
}  # fmt: skip

WAYS: Final = {
    "email": "IMAP, SMTP, LMTP, files",
    "google_voice": "in mail",
    "youmail": "in mail",
    "webchat": "WebSocket, HTTP",
    "form": "HTTP",
    "event": "HTTP, Kafka",
    "message": "HTTP",
    "csv": "files",
}
NO_PAGE: Final = {"message": "event.md"}

_HEAD: Final = """# Channels

Any of these is switched on by an account in [`channels.yaml`](../../policy/channels.yaml), and its messages become the same
[`message.received`](../events.md) events. Each name leads to a page with the set-up, step by step.

**Nothing here was tried against a live account.** The vendors' facts come from their documentation and from code that is in
use; what is believed and not confirmed is said on the channel's page. What stands under *tested* is real parts of ours
against recorded deliveries, the vendors' published or computed signatures, and fake vendors that check as strictly.

- **In**: *webhook* is posted to `/v1/channels/{channel}/{account}`; *poll* is looked into by us; *read back* means that a
  webhook only hints, or proves nothing, and that its content is fetched through the vendor's API where a key is set.
- **Verified** is what proves where a delivery came from. A *token* is shown and signs nothing: such messages carry
  `verified: false` unless they are read back.
- **Out** is what the vendor lets us do. What Signalbox itself sends today is mail and web chat; on the other channels an
  agent answers at the vendor, and where the vendor tells us so the ticket counts as answered.
- **Window** is how long after the customer's last words the vendor lets us answer.

"""

_FOOT: Final = """
## Asked for, and not a channel

- **Buffer Reply** is discontinued: [what took its place](buffer.md).
- **Shopify Inbox** and **POWR** have no public interface for conversations: they come by [mail](email.md).

## Trying one without an account

```sh
signalbox normalize --channel email < message.eml          # what message is this?
signalbox normalize --batch < deliveries.ndjson            # many, of any channel
signalbox verify --batch < requests.ndjson                 # would it be let in, and what is answered?
```
"""


def page(root: Path) -> str:
    """Return the page. Every channel stands in it, or the page cannot be made."""
    named = [name for names in FAMILIES.values() for name in names]
    if sorted(named) != sorted(CHANNELS):
        odd = sorted(set(named) ^ set(CHANNELS))
        raise ValueError(f"cli/channel_table.py: FAMILIES and the adapters differ in {odd}")
    parts = [_HEAD]
    for family, names in FAMILIES.items():
        parts.append(f"## {family}\n\n")
        parts.append("| channel | in | out | verified | window | limits | tested |\n")
        parts.append("|---|---|---|---|---|---|---|\n")
        parts += [_row(root, CHANNELS[name]) for name in names]
        parts.append("\n")
    return "".join([*parts[:-1], _FOOT])


def _row(root: Path, channel: Channel) -> str:
    can = channel.capability
    name = channel.name
    link = NO_PAGE.get(name, f"{name}.md")
    cells = [
        f"[{name}]({link})",
        WAYS.get(name) or _ways(channel),
        ("public reply" if can.is_public else "reply") if can.can_reply else "none",
        can.proof,
        _window(can.reply_window_seconds),
        _limits(channel),
        _tested(root, name),
    ]
    return f"| {' | '.join(cells)} |\n"


def _ways(channel: Channel) -> str:
    ways = []
    if channel.verify is not None:
        ways.append("webhook")
    if channel.poll is not None:
        ways.append("poll")
    if channel.read_back is not None:
        ways.append("read back")
    return ", ".join(ways)


def _window(seconds: int | None) -> str:
    if seconds is None:
        return "–"
    days, rest = divmod(seconds, 86_400)
    return (
        f"{days} d"
        if days > 1 and not rest
        else f"{seconds // 3600} h"
        if seconds >= 3600
        else f"{seconds} s"
    )


def _limits(channel: Channel) -> str:
    can = channel.capability
    told = []
    if can.reply_characters_max is not None:
        told.append(f"{can.reply_characters_max:,} characters")
    told.append("files" if can.supports_attachments else "no files")
    return ", ".join(told)


def _tested(root: Path, name: str) -> str:
    folder = root / FIXTURES / name
    pairs = len(list(folder.glob("*.expected.json")))
    told = [f"{pairs} pairs"] if pairs else []
    vectors = folder / "verify.json"
    if vectors.exists():
        told.append(f"{len(json.loads(vectors.read_text('utf-8')))} vectors")
    if any((root / FAKES / f"{fake}.py").exists() for fake in (name, f"{name}s")):
        told.append("fake vendor")
    own = {
        "webchat": "Chromium",
        "email": "IMAP, SMTP and LMTP servers",
        "form": "the gateway's contract",
    }
    if name in own:
        told.append(own[name])
    return ", ".join(told) or "unit tests"
