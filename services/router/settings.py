"""What an operator sets for the router: what every service has, and little else. Who gets what is policy."""

from pydantic import Field

from chassis.settings import Settings as ServiceSettings


class Settings(ServiceSettings):
    """Settings of the router."""

    vendor_seconds: float = Field(
        default=20.0,
        gt=0,
        le=300,
        description="Seconds to wait for the answer of a helpdesk, chat tool or board that is told who has a ticket.",
    )
