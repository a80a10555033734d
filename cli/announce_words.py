"""What an announcement says and to whom besides: words by language from options or a file, and a table of people.

Owns the reading and every complaint about it: each names the option, or the file with its line, and the cure.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.errors import UsageMistake

if TYPE_CHECKING:
    from services.notifier.core.policy import Policy
    from services.notifier.core.state import Contact

TITLE_MAX: Final = 300
TEXT_MAX: Final = 10_000
NAME_MAX: Final = 200
ABOUT_MAX: Final = 200
FILE_BYTES_MAX: Final = 50_000_000
ACCOUNT: Final = "announcement"
"""What stands for the channel's account of somebody who never wrote: no account of a policy, so that the default sender speaks."""

ADDRESS_COLUMNS: Final = ("address", "email", "phone")
OTHER_COLUMNS: Final = ("name", "language")


@dataclass(frozen=True, slots=True)
class Words:
    """Title and text by language; `where` is the file that they stand in, empty where they were given as options."""

    titles: Mapping[str, str]
    texts: Mapping[str, str]
    where: str

    def language_for(self, language: str) -> str:
        """Return the language that somebody is told in: theirs where there are words in it, else the first one."""
        return language if language in self.texts or language in self.titles else self.first

    @property
    def first(self) -> str:
        """The default language: it has all words, and stands first."""
        return next(iter(self.texts or self.titles), "")


# ----------------------------------------------------------------------------------------------- words


def words_of_options(
    default: str, title: str, text: str, titles: Mapping[str, str], texts: Mapping[str, str]
) -> Words:
    """Return the words of options: `title` and `text` in the default language, the others by language."""
    for name, plain, by_language in (("title", title, titles), ("text", text, texts)):
        if plain and by_language.get(default):
            raise UsageMistake(
                f"--{name} and --{name}-{default} say the same thing twice: {default} is the language of --{name}."
            )
    return Words(
        _given({**titles, default: title or titles.get(default, "")}),
        _given({**texts, default: text or texts.get(default, "")}),
        "",
    )


def _given(words: Mapping[str, str]) -> dict[str, str]:
    return {language: said.strip() for language, said in words.items() if said.strip()}


def words_of_file(path: Path, default: str) -> Words:
    """Return the words of a YAML file: `title` and `text`, each by language, or one for the default language.

    Raises:
        UsageMistake: the file cannot be read, or something in it is not as it should be.
    """
    from chassis.errors import PolicyError
    from chassis.policy import read_yaml

    try:
        found = read_yaml(path)
    except PolicyError as error:
        raise UsageMistake(f"--file {error}") from None
    if not isinstance(found, dict):
        raise UsageMistake(f"--file {path}: must have title and text, each by language.")
    unknown = sorted(str(name) for name in found if name not in ("title", "text"))
    if unknown:
        raise UsageMistake(f"--file {path}: {unknown[0]}: only title and text are known here.")
    return Words(
        _by_language(path, "title", found.get("title"), default),
        _by_language(path, "text", found.get("text"), default),
        str(path),
    )


def _by_language(path: Path, name: str, found: Any, default: str) -> dict[str, str]:
    if found is None:
        return {}
    by_language = found if isinstance(found, dict) else {default: found}
    for language, said in by_language.items():
        if not isinstance(said, str):
            raise UsageMistake(f"--file {path}: {name}.{language}: must be text in quotes.")
    return _given({str(language): said for language, said in by_language.items()})


def check_words(words: Words, occasion: str, policy: "Policy", *, as_written: bool) -> Words:
    """Return the words with the default language first, if they can be told.

    Raises:
        UsageMistake: something is missing, too long, in a language without templates, or would be stumbled over.
    """
    needed = {
        "outage_known": ("title", "text"),
        "outage_over": ("title", "text") if words.texts else ("title",),
        "security": ("text",),
    }[occasion]
    default = policy.default_language
    if occasion == "security" and words.titles:
        raise UsageMistake("--title: a security notice has a title of its own; say it in --text.")
    for name, limit, by_language in (
        ("title", TITLE_MAX, words.titles),
        ("text", TEXT_MAX, words.texts),
    ):
        languages = {*words.titles, *words.texts, default} if name in needed else {*by_language}
        for language in sorted(languages):
            _check_one(words.where, name, language, by_language.get(language, ""), limit, policy)
    if not as_written:
        _check_tone(words)
    order = [default, *sorted({*words.titles, *words.texts} - {default})]
    return Words(
        {one: words.titles[one] for one in order if one in words.titles},
        {one: words.texts[one] for one in order if one in words.texts},
        words.where,
    )


def _check_one(
    where: str, name: str, language: str, said: str, limit: int, policy: "Policy"
) -> None:
    what = f"{f'--file {where}: ' if where else ''}{name} in {language}"
    if language not in policy.languages:
        known = ", ".join(sorted(policy.languages))
        raise UsageMistake(f"{what}: notify.yaml has no such language, only {known}.")
    if not said:
        raise UsageMistake(
            f"{what} is missing: give --{name}-{language}, or {name}: {{{language}: …}} in --file."
        )
    if len(said) > limit:
        raise UsageMistake(f"{what} has {len(said)} characters; at most {limit} are allowed.")
    if name == "title" and "\n" in said:
        raise UsageMistake(f"{what} must be one line.")


def _check_tone(words: Words) -> None:
    from services.notifier.core.tone import written

    found = [
        finding
        for name, by_language in (("title", words.titles), ("text", words.texts))
        for language, said in by_language.items()
        for finding in written(said, language, f"{name} ({language})")
        if finding.level == "error"
    ]
    if found:
        listed = "\n".join(f"  {one.file}:{one.line}: {one.message}" for one in found)
        raise UsageMistake(
            f"Customers would stumble over this:\n{listed}\nSay it otherwise, or give --as-written if it has to be so."
        )


# ---------------------------------------------------------------------------------------------- people


def people_of_file(path: Path, policy: "Policy") -> tuple["Contact", ...]:
    """Return the people of a table: a mail address or telephone number each, with name and language where they are there.

    Whoever gives the file vouches that the addresses are their customers'. Nobody is mailed a row that is not understood.

    Raises:
        UsageMistake: the file cannot be read, or its first lines (at most ten) that are wrong.
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise UsageMistake(f"--csv {path}: is larger than {FILE_BYTES_MAX // 1_000_000} MB.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(path, file))
    except OSError as error:
        raise UsageMistake(f"--csv {path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UsageMistake(f"--csv {path}: must be UTF-8.") from None
    except csv.Error as error:
        raise UsageMistake(f"--csv {path}: is no table ({error}).") from None
    found: dict[str, Contact] = {}
    wrong: list[str] = []
    for line, row in rows:
        try:
            contact = _contact(row, policy)
        except ValueError as error:
            wrong.append(f"  line {line}: {error}")
        else:
            found.setdefault(contact.address.lower(), contact)
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UsageMistake(f"--csv {path}:\n" + "\n".join(wrong[:10]) + more)
    if not found:
        raise UsageMistake(f"--csv {path}: has nobody in it.")
    return tuple(found.values())


def _rows(path: Path, file: Any) -> Sequence[tuple[int, dict[str, str]]]:
    head = file.read(4096)
    file.seek(0)
    first = head.partition("\n")[0]
    reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
    names = [name.strip().lower() for name in next(reader, [])]
    if not any(name in ADDRESS_COLUMNS for name in names):
        raise UsageMistake(
            f"--csv {path}: the first line names the columns; one of {', '.join(ADDRESS_COLUMNS)} has to be among them."
        )
    unknown = [name for name in names if name not in (*ADDRESS_COLUMNS, *OTHER_COLUMNS)]
    if unknown:
        raise UsageMistake(
            f"--csv {path}: column {unknown[0]!r} is not known, only {', '.join((*ADDRESS_COLUMNS, *OTHER_COLUMNS))}."
            " Leave out what is not needed here."
        )
    return [
        (reader.line_num, dict(zip(names, (cell.strip() for cell in row), strict=False)))
        for row in reader
        if any(cell.strip() for cell in row)
    ]


def _contact(row: Mapping[str, str], policy: "Policy") -> "Contact":
    """Return whom a row names, by the first address that it has.

    Raises:
        ValueError: nobody, or by no address that is one, or by none that the policy has a way to.
    """
    from services.notifier.core.audience import mail_address, phone_number
    from services.notifier.core.plan import recipients
    from services.notifier.core.state import Contact

    given = next((row[name] for name in ADDRESS_COLUMNS if row.get(name)), "")
    if not given:
        raise ValueError("has no address")
    if len(row.get("name", "")) > NAME_MAX:
        raise ValueError(f"name: is longer than {NAME_MAX} characters")
    is_mail = "@" in given
    contact = Contact(
        name=row.get("name", ""),
        address=given if is_mail else "".join(char for char in given if char not in " -()."),
        address_kind="email" if is_mail else "phone",
        channel="email" if is_mail else "sms",
        account=ACCOUNT,
        language=_language(row.get("language", ""), policy),
        is_verified=True,
    )
    if is_mail and mail_address(contact) is None:
        raise ValueError("address: is no mail address that can be mailed")
    if not is_mail and phone_number(contact) is None:
        raise ValueError("address: a telephone number needs its country, such as +905321234567")
    if not recipients(policy, contact):
        raise ValueError(
            "address: it is one of our own, or notify.yaml has no way to it: put `mail` into fall_back"
            if is_mail
            else "address: notify.yaml has no way to it: put an account that writes to numbers into fall_back"
        )
    return contact


def _language(given: str, policy: "Policy") -> str | None:
    """Return a language as notify.yaml names it; None where it is left out.

    Raises:
        ValueError: notify.yaml does not have it.
    """
    primary = given.lower().replace("_", "-").partition("-")[0]
    if primary and primary not in policy.languages:
        known = ", ".join(sorted(policy.languages))
        raise ValueError(f"language: {given[:20]!r} is none of notify.yaml's, which are {known}")
    return primary or None
