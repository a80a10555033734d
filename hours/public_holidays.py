"""The public holidays of a country, from 2000 to 2060: what `{country: TR}` in `calendars.yaml` stands for.

Owns that entry's form and its way into dates. The dates come from the `holidays` library (MIT), which knows the rules
of about 250 countries and their parts; those of a moon calendar are as good as its tables, and a country may decide
otherwise at short notice, so what is listed can be seen (`signalbox sla calendars`) and left out (`except`).

The library is imported when the first country is asked for: it takes longer than all its answers.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Final

from hours.calendar import CalendarError

YEARS_LISTED: Final = range(2000, 2061)
"""The years whose holidays are worked out. A calendar is asked about the present, give or take a few years."""

_KEYS: Final = ("country", "subdivision", "categories", "observed", "except")
_AN_ENTRY: Final = (
    'a date "YYYY-MM-DD", or a country such as {country: TR}, with subdivision, categories,'
    " observed and except where they are wanted"
)
_ENGLISH: Final = "en_US"
_NOTE: Final = re.compile(r"\s*\([^()]*\)$")

Day = tuple[date, str]
"""A date and what is celebrated, in English where the library has it, otherwise in the country's language."""


@dataclass(frozen=True, slots=True)
class Country:
    """Which holidays are meant: `categories` empty is the library's own choice, the public ones.

    `observed`: a holiday that falls on a weekend also takes the day the country gives instead. `left_out` are names, in
    English or in the country's language.
    """

    country: str
    subdivision: str | None = None
    categories: tuple[str, ...] = ()
    observed: bool = True
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = self.country if self.subdivision is None else f"{self.country}-{self.subdivision}"
        return f"country {place}" + (f" ({', '.join(self.categories)})" if self.categories else "")


def parse_country(path: str, value: Mapping[Any, Any]) -> Country:
    """Read an entry of `holidays` that names a country.

    Raises:
        CalendarError: an unknown key, country, part of it or category, or a name to leave out that none of its holidays
            has; says what is allowed.
    """
    for key in value:
        if key not in _KEYS:
            raise CalendarError(f"{path}.{key}", value[key], f"only {', '.join(_KEYS)}")
    country = _country(f"{path}.country", value.get("country"))
    known = _class_of(country)
    observed = value.get("observed", True)
    if not isinstance(observed, bool):
        raise CalendarError(f"{path}.observed", observed, "true or false")
    made = Country(
        country,
        _subdivision(f"{path}.subdivision", value.get("subdivision"), country, known),
        _categories(f"{path}.categories", value.get("categories"), country, known),
        observed,
        _names(f"{path}.except", value.get("except")),
    )
    _check_left_out(f"{path}.except", made)
    return made


@cache
def days_of(country: Country) -> tuple[Day, ...]:
    """Return the dates in order, each with its names. Worked out once a process and entry."""
    languages = [_names_by_day(country, language) for language in _languages(country)]
    unwanted = {name.casefold() for name in country.left_out}
    kept = []
    for day, names in sorted(languages[0].items()):
        told = [[n for n in one.get(day, ()) if not _is_named(n, unwanted)] for one in languages]
        if all(told):
            kept.append((day, ", ".join(told[0] if country.left_out else names)))
    return tuple(kept)


def _names_by_day(country: Country, language: str | None) -> dict[date, list[str]]:
    import holidays

    options: dict[str, Any] = {"categories": country.categories} if country.categories else {}
    with warnings.catch_warnings():
        # Some countries' tables begin later or end earlier; what there is is shown with its dates.
        warnings.simplefilter("ignore")
        found = holidays.country_holidays(
            country.country,
            subdiv=country.subdivision,
            years=YEARS_LISTED,
            observed=country.observed,
            language=language,
            **options,
        )
        return {day: found.get_list(day) for day in found if day.year in YEARS_LISTED}


def _languages(country: Country) -> tuple[str | None, ...]:
    """The languages to work in: the one that is shown first; both only where names are compared."""
    known = _class_of(country.country)
    shown = _ENGLISH if _ENGLISH in known.supported_languages else known.default_language
    if not country.left_out or shown == known.default_language:
        return (shown,)
    return (shown, known.default_language)


def _is_named(name: str, wanted: Iterable[str]) -> bool:
    """Whether a name is wanted, with or without the note behind it: "Christmas Day (observed)"."""
    return name.casefold() in wanted or _NOTE.sub("", name).casefold() in wanted


@cache
def _codes() -> tuple[str, ...]:
    from holidays.registry import EntityLoader

    return tuple(sorted(EntityLoader.get_country_codes(include_aliases=False)))


@cache
def _class_of(country: str) -> Any:
    import holidays

    return type(holidays.country_holidays(country))


def _country(path: str, value: object) -> str:
    codes = _codes()
    if not isinstance(value, str) or value not in codes:
        raise CalendarError(
            path, value, f"a country's two letters of ISO 3166, one of {', '.join(codes)}"
        )
    return value


def _subdivision(path: str, value: object, country: str, known: Any) -> str | None:
    if value is None:
        return None
    parts = known.subdivisions
    if not isinstance(value, str) or value not in parts:
        allowed = f"one of {', '.join(parts)}" if parts else f"nothing: {country} has no parts here"
        raise CalendarError(path, value, allowed)
    return value


def _categories(path: str, value: object, country: str, known: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    allowed = f"a list of categories, those of {country}: {', '.join(known.supported_categories)}"
    if not isinstance(value, (list, tuple)) or not value:
        raise CalendarError(path, value, allowed)
    for i, category in enumerate(value):
        if category not in known.supported_categories:
            raise CalendarError(f"{path}[{i}]", category, allowed)
    return tuple(dict.fromkeys(value))


def _names(path: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise CalendarError(path, value, "a list of holidays' names")
    for i, name in enumerate(value):
        if not isinstance(name, str):
            raise CalendarError(f"{path}[{i}]", name, "a holiday's name")
    return tuple(dict.fromkeys(value))


def _check_left_out(path: str, country: Country) -> None:
    """Refuse a name that leaves out nothing: the day would be closed against its author's will."""
    if not country.left_out:
        return
    names = {
        name
        for language in _languages(country)
        for told in _names_by_day(country, language).values()
        for name in told
    }
    for i, wanted in enumerate(country.left_out):
        if not any(_is_named(name, {wanted.casefold()}) for name in names):
            shown = sorted({_NOTE.sub("", name) for name in names})
            raise CalendarError(f"{path}[{i}]", wanted, f"a name such as {', '.join(shown)}")


def is_country(value: object) -> bool:
    """Whether an entry of `holidays` is meant to name a country, rather than a date."""
    return isinstance(value, Mapping)


AN_ENTRY: Final = _AN_ENTRY
"""What may stand in `holidays`, for the message about what may not."""
