"""What an operator sets for this service, beside what every service has."""

from pydantic import Field

from chassis import settings


class Settings(settings.Settings):
    """The settings of `sla`."""

    sla_gauge_seconds: float = Field(
        default=15.0,
        ge=1,
        le=3600,
        description="Seconds between two looks at the tables for the gauges of what is open; each look reads the"
        " indexes of open targets and open tickets once, half a second at a million open targets.",
    )
    console_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s]+)?$",
        description="Address of the console that pages link to, as `<address>/tickets/<id>`; empty: no links.",
    )
