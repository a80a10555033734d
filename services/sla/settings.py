"""What an operator sets for this service, beside what every service has."""

from pydantic import Field

from chassis import settings


class Settings(settings.Settings):
    """The settings of `sla`."""

    sla_gauge_seconds: float = Field(
        default=15.0,
        ge=1,
        le=3600,
        description="Seconds between two looks at the table of targets for the gauge of open ones;"
        " each look reads the index of open targets once.",
    )
