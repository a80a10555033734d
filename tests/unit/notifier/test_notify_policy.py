"""A mistake in `notify.yaml` is refused with its path, its value and what is allowed."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import Field

from services.notifier.core.accounts import AccountSettings, SecretReference
from services.notifier.core.policy import ApprovedTemplate, NotifyFile, Policy, PolicyMistake, build
from services.notifier.core.post import Traits

FOLDER = Path(__file__).parents[3] / "policy"


class Number(AccountSettings):
    """A number at a vendor."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"access_token": "env:TOKEN", "number": "1"}

    access_token: SecretReference
    number: str = Field(pattern=r"^[0-9]+$")


PROVIDERS = {
    "whatsapp": (
        Number,
        Traits(
            frozenset({"whatsapp"}),
            "text",
            "address",
            window=timedelta(hours=24),
            has_templates=True,
        ),
    ),
    "zendesk": (Number, Traits(frozenset({"zendesk"}), "html", "thread")),
}
WHATSAPP = {"provider": "whatsapp", "access_token": "env:TOKEN", "number": "1"}


@pytest.fixture(scope="module")
def made() -> Callable[..., Policy]:
    """`made(fall_back=["mail"])`: the example policy with sections of it exchanged."""
    written = yaml.safe_load((FOLDER / "notify.yaml").read_text())
    del written["articles"]
    templates = FOLDER / "templates"
    sources = {
        path.relative_to(templates).as_posix(): path.read_text()
        for path in sorted(templates.glob("**/*.j2"))
    }

    def make(**sections: Any) -> Policy:
        file = NotifyFile.model_validate(written | {"quiet_hours": {}} | sections)
        return build(file, sources, "v1", PROVIDERS)

    return make


def windows(*written: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"windows": list(written), **more}


EVENING = {"from": "21:00", "to": "08:00"}


@pytest.mark.parametrize(
    ("sections", "path", "allowed"),
    [
        ({"accounts": {"a": {"provider": "fax"}}}, "accounts.a.provider", "whatsapp, zendesk"),
        ({"accounts": {"a": {}}}, "accounts.a.provider", "whatsapp, zendesk"),
        ({"accounts": {"a": {"provider": "smtp"}}}, "accounts.a.provider", "senders"),
        ({"accounts": {"a": {"provider": "zendesk"}}}, "accounts.a.access_token", "required"),
        (
            {"accounts": {"a": WHATSAPP | {"number": "x"}}},
            "accounts.a.number",
            "pattern",
        ),
        ({"accounts": {"a": WHATSAPP | {"nmber": "1"}}}, "accounts.a.nmber", "not permitted"),
        (
            {"accounts": {"a": WHATSAPP | {"provider": "zendesk", "templates": {"solved": {}}}}},
            "accounts.a.templates",
            "zendesk has no templates",
        ),
        (
            {"accounts": {"a": WHATSAPP | {"templates": {"solvd": {}}}}},
            "accounts.a.templates.solvd",
            "received",
        ),
        (
            {
                "accounts": {
                    "a": WHATSAPP
                    | {"templates": {"solved": {"de": {"name": "x", "language": "de"}}}}
                }
            },
            "accounts.a.templates.solved.de",
            "en, ru, tr",
        ),
        (
            {
                "accounts": {
                    "a": WHATSAPP
                    | {
                        "templates": {
                            "solved": {"en": {"name": "x", "language": "en", "values": ["age"]}}
                        }
                    }
                }
            },
            "accounts.a.templates.solved.en.values.0",
            "reference",
        ),
        ({"fall_back": ["sms"]}, "fall_back.0", "mail"),
        ({"fall_back": ["mail", "mail"]}, "fall_back.1", "once"),
        (
            {
                "accounts": {"desk": WHATSAPP | {"provider": "zendesk"}},
                "fall_back": ["mail", "desk"],
            },
            "fall_back.1",
            "knows only its own users",
        ),
        ({"timezone": "Europe/Istambul"}, "timezone", "IANA"),
        ({"timezone_by_country": {"RU": "Moscow"}}, "timezone_by_country.RU", "IANA"),
        ({"default_language": "de"}, "default_language", "en, ru, tr"),
        (
            {"quiet_hours": windows(EVENING, {"from": "07:00", "to": "09:00"})},
            "quiet_hours.windows.1",
            "do not overlap",
        ),
        (
            {"quiet_hours": windows({"from": "00:00", "to": "24:00"})},
            "quiet_hours.windows",
            "at least 180 minutes",
        ),
        (
            {"quiet_hours": windows(EVENING, break_through={"silent_providers": ["fax"]})},
            "quiet_hours.break_through.silent_providers.0",
            "smtp, whatsapp, zendesk",
        ),
        (
            {
                "quiet_hours": windows(EVENING),
                "digest": {"occasions": ["next_issue"], "at": "07:30"},
            },
            "digest.at",
            "no day of the week has quiet",
        ),
        (
            {"digest": {"occasions": ["check_in"]}, "occasions": {"digest": False}},
            "digest.occasions",
            "empty while occasions.digest is false",
        ),
        ({"digest": {"occasions": ["received"]}}, "digest.occasions.0", "can wait for a day"),
        ({"digest": {"occasions": ["security"]}}, "digest.occasions.0", "can wait for a day"),
        ({"digest": {"occasions": ["survey"]}}, "digest.occasions.0", "can wait for a day"),
        ({"digest": {"occasions": ["recovery"]}}, "digest.occasions.0", "can wait for a day"),
        ({"digest": {"occasions": ["delayed"]}}, "digest.occasions.0", "can wait for a day"),
        (
            {"next_issue": {"damaged": {"articles": {"tr": {"title": "x", "url": "https://a.example"}}}}},
            "next_issue.damaged.articles",
            "default language, en",
        ),
        (
            {
                "next_issue": {
                    "damaged": {
                        "articles": {
                            "en": {"title": "x", "url": "https://a.example"},
                            "de": {"title": "x", "url": "https://a.example"},
                        }
                    }
                }
            },
            "next_issue.damaged.articles.de",
            "en, ru, tr",
        ),
    ],
)  # fmt: skip
def test_a_mistake_names_its_path_and_what_is_allowed(
    made: Callable[..., Policy], sections: dict[str, Any], path: str, allowed: str
) -> None:
    with pytest.raises(PolicyMistake) as refused:
        made(**sections)
    assert refused.value.file == "notify.yaml"
    assert refused.value.path == path
    assert allowed in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"quiet_hours": windows({"from": "9:00", "to": "10:00"})}, "quiet_hours.windows.0.from"),
        ({"quiet_hours": windows({"from": "09:00", "to": "25:00"})}, "quiet_hours.windows.0.to"),
        ({"quiet_hours": windows({"from": "09:00", "to": "09:00"})}, "quiet_hours.windows.0"),
        (
            {"quiet_hours": windows(EVENING | {"days": ["mon", "mon"]})},
            "quiet_hours.windows.0",
        ),
        ({"quiet_hours": windows(EVENING | {"days": ["monday"]})}, "quiet_hours.windows.0.days.0"),
        (
            {"quiet_hours": windows(break_through={"priorities": [5]})},
            "quiet_hours.break_through.priorities.0",
        ),
        ({"occasions": {"recieved": True}}, "occasions.recieved"),
        ({"caps": {"categories": {"security": {"count": 1, "days": 1}}}}, "caps.categories.security"),
        ({"caps": {"categories": {"outage": {"count": 1, "days": 0}}}}, "caps.categories.outage.days"),
        ({"consent": {"needed": ["service"]}}, "consent.needed.0"),
        ({"topics": {"damaged": "broken"}}, "topics.damaged"),
        ({"survey": {"share": 1.5}}, "survey.share"),
        ({"outage": {"audience": "everybody"}}, "outage.audience"),
        ({"next_issue": {"damaged": {"articles": {}}}}, "next_issue.damaged.articles"),
        (
            {"next_issue": {"damaged": {"articles": {"en": {"title": "x", "url": "http://a.example"}}}}},
            "next_issue.damaged.articles.en.url",
        ),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_where_it_stands(
    sections: dict[str, Any], path: str
) -> None:
    written = yaml.safe_load((FOLDER / "notify.yaml").read_text())
    del written["articles"]
    with pytest.raises(ValueError, match=r"validation error") as refused:
        NotifyFile.model_validate(written | sections)
    found = refused.value.errors()  # type: ignore[attr-defined]
    assert any(".".join(map(str, one["loc"])).startswith(path) for one in found), found


def test_a_secret_that_stands_where_a_reference_belongs_is_not_shown(
    made: Callable[..., Policy],
) -> None:
    with pytest.raises(PolicyMistake) as refused:
        made(accounts={"a": WHATSAPP | {"access_token": "hunter2"}})
    assert "hunter2" not in str(refused.value)
    assert refused.value.path == "accounts.a.access_token"


def test_accounts_fall_backs_and_templates_are_taken_over(made: Callable[..., Policy]) -> None:
    template = {"name": "we_have_an_answer", "language": "en_GB", "values": ["name"]}
    policy = made(
        accounts={"a": WHATSAPP | {"templates": {"answered": {"en": template}}}},
        fall_back=["a", "mail"],
    )
    assert policy.accounts["a"].provider == "whatsapp"
    assert policy.accounts["a"].settings == Number(access_token="env:TOKEN", number="1")
    assert policy.approved["a"]["answered"]["en"] == ApprovedTemplate(
        "we_have_an_answer", "en_GB", ("name",)
    )
    assert policy.fall_back == ("a", "mail")


def test_what_is_off_is_planned_for_no_time(made: Callable[..., Policy]) -> None:
    off = made(occasions={"survey": False, "check_in": False})
    assert (off.timing.survey_after, off.timing.check_in_after) == (None, None)
    on = made(occasions={"survey": True, "check_in": True}, check_in={"after_days": 3})
    assert on.timing.survey_after == timedelta(hours=24)
    assert on.timing.check_in_after == timedelta(days=3)


def test_security_is_never_held_back_whatever_the_file_says(made: Callable[..., Policy]) -> None:
    policy = made(quiet_hours=windows(EVENING, break_through={"categories": []}))
    assert "security" in policy.quiet.categories


def test_a_channel_has_its_own_share_of_surveys(made: Callable[..., Policy]) -> None:
    survey = made(survey={"share": 0.5, "shares": {"twilio_sms": 0.1}}).survey
    assert (survey.share_of("email"), survey.share_of("twilio_sms")) == (0.5, 0.1)


def test_an_address_that_is_dead_for_good_is_so_unless_days_are_given(
    made: Callable[..., Policy],
) -> None:
    assert made().hard_bounce_for is None
    assert made(undeliverable={"hard_days": 180}).hard_bounce_for == timedelta(days=180)
