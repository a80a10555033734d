"""Tidio's tickets."""

import json

from services.notifier.adapters import tidio
from services.notifier.core.post import Trouble
from tests.contract.providers import ProviderCase, VendorError, a_post
from tests.fakes import desk
from tests.fakes.tidio import Tidio


def said(code: str) -> str:
    return json.dumps({"errors": [{"code": code, "message": "see the reference"}]})


CASE = ProviderCase(
    provider=tidio.PROVIDER,
    settings=tidio.Settings(
        client_id=Tidio.client_id,
        client_secret="env:SECRET",
        operator_id=Tidio.operators[0],
        url=desk.BASE,
    ),
    secrets={"env:SECRET": Tidio.client_secret},
    fake=Tidio,
    post=a_post(tidio.PROVIDER, to="6b1d8c2e-0000-4000-8000-000000000001", thread="5158"),
    errors=(
        VendorError(404, said("ticket_not_found"), Trouble.WINDOW),
        VendorError(422, said("validation_failed"), Trouble.MESSAGE),
        VendorError(429, said("too_many_requests"), Trouble.PROVIDER, is_recoverable=True),
    ),
)
