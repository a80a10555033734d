"""The accounts that notices go out by: what every account's settings share. Each provider adds its own."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

_LOCAL = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?(/[^\s?#]*)?")


def _address(value: str) -> str:
    if value.startswith("https://") and re.fullmatch(r"https://[^\s?#@/]+(/[^\s?#]*)?", value):
        return value.rstrip("/")
    if _LOCAL.fullmatch(value):
        return value.rstrip("/")
    raise ValueError("must be an https address without a query, such as https://shop.example")


SecretReference = Annotated[
    str, StringConstraints(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+)$", max_length=300)
]
"""Where a secret stands: `env:NAME` or `file:/path`. Never the secret itself."""

ApiAddress = Annotated[
    str, StringConstraints(max_length=500, strip_whitespace=True), AfterValidator(_address)
]
"""The address of an API: https, or http to this machine for tests."""


class AccountSettings(BaseModel):
    """What each provider's settings extend; fields that end in a secret are a `SecretReference`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    EXAMPLE: ClassVar[dict[str, Any]] = {}
    """Settings as they would stand in `notify.yaml`, for the documents and the tests."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account as `notify.yaml` has it: which provider it is at, and that provider's settings."""

    provider: str
    settings: AccountSettings
