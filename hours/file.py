"""`calendars.yaml`: business calendars by name, one file for every service that reads the clock by them."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from hours.calendar import Calendar, parse_calendar

CALENDARS_FILE: Final = "calendars.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class CalendarsFile(BaseModel):
    """`calendars.yaml`: business calendars by name, in the form that `parse_calendar` reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calendars: dict[Name, dict[str, Any]] = Field(min_length=1)


def read(file: CalendarsFile) -> dict[str, Calendar]:
    """Return the calendars by name.

    Raises:
        CalendarError: the first that cannot be used, with its path in the file, the value and what is allowed.
    """
    return {
        name: parse_calendar(mapping, f"calendars.{name}")
        for name, mapping in file.calendars.items()
    }
