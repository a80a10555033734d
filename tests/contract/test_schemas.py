"""The contract with the world: schemas, examples, the envelope on the wire, and what a release may change."""

import copy
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from schemas import asyncapi, check, export
from schemas.compatibility import UnknownKeyword, fields, incompatibilities, snapshot
from schemas.envelope import Envelope, EnvelopeError, parse_time, read_record
from schemas.json_schema import DIALECT, json_schema
from schemas.registry import MODULES, REGISTRY, Payload
from schemas.topics import BY_NAME, TOPICS, VALUE_BYTES_MAX
from services.ingest.adapters.channel import ParseError
from services.ingest.adapters.event import read_message

TYPES = sorted(REGISTRY)
FORMATS = jsonschema.FormatChecker(formats=[])


@FORMATS.checks("date-time", raises=EnvelopeError)
def _is_instant(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    exported = json.loads((export.ROOT / export.JSON / f"{name}.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(exported, format_checker=FORMATS)


# -- schemas and examples ----------------------------------------------------------------------------------------------


def test_generated_files_are_those_of_this_code() -> None:
    assert check.stale() == []


def test_this_code_keeps_what_was_released() -> None:
    assert check.broken() == []


def test_every_file_is_written_the_same_twice() -> None:
    assert export.files() == export.files()


@pytest.mark.parametrize("name", TYPES)
def test_every_schema_is_valid_and_names_no_real_host(name: str) -> None:
    schema = validator(name).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert schema["$id"] == f"https://signalbox.example/schemas/{name}.json"
    assert schema["title"] == REGISTRY[name].__name__
    assert schema["description"]


@pytest.mark.parametrize("name", TYPES)
def test_every_example_fits_its_exported_schema(name: str) -> None:
    example = json.loads((export.ROOT / export.EXAMPLES / f"{name}.json").read_text("utf-8"))
    validator(name).validate(example)
    assert validator(name).schema["examples"] == [example]


@pytest.mark.parametrize("name", TYPES)
def test_what_we_write_fits_the_exported_schema_and_reads_back_the_same(name: str) -> None:
    kind = REGISTRY[name]
    event = kind.model_validate(kind.EXAMPLE)
    written = event.to_json()
    validator(name).validate(json.loads(written))
    assert kind.model_validate_json(written) == event
    assert kind.model_validate_json(written).to_json() == written


@pytest.mark.parametrize("name", [name for name in TYPES if name != "message.submitted.v1"])
def test_a_reader_ignores_fields_it_does_not_know(name: str) -> None:
    kind = REGISTRY[name]
    newer = {**kind.EXAMPLE, "a_field_of_tomorrow": {"deep": [1]}}
    validator(name).validate(newer)
    assert kind.model_validate(newer) == kind.model_validate(kind.EXAMPLE)


def test_a_submission_of_another_system_is_refused_for_an_unknown_field_and_for_null() -> None:
    kind = REGISTRY["message.submitted.v1"]
    for wrong in ({"surprise": 1}, {"id": None}, {"references": ["a"] * 51}, {"text": ""}):
        with pytest.raises(jsonschema.ValidationError):
            validator(kind.TYPE).validate({**kind.EXAMPLE, **wrong})
    with pytest.raises(ValueError, match="surprise"):
        kind.model_validate({**kind.EXAMPLE, "surprise": 1})


HTTP_HEADERS = {
    "content-type": "application/json", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "kiosk",
    "ce-type": "message.submitted.v1", "ce-time": "2026-11-24T08:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({}, True),
        ({"references": ["case-17/1"], "in_reply_to": "case-17/2"}, True),
        ({"sender": {"address": "+905321112233", "kind": "phone"}}, True),
        ({"occurred_at": None}, True),
        ({"id": None}, False),
        ({"id": "x" * 200}, True),
        ({"id": "x" * 201}, False),
        ({"account": "Upper"}, False),
        ({"sender": {"address": "ada@example.com", "kind": "pigeon"}}, False),
        ({"sender": {"address": "ada@example.com", "age": 36}}, False),
        ({"text": "x" * 100_000}, True),
        ({"text": "x" * 100_001}, False),
        ({"subject": "x" * 999}, False),
        ({"surprise": 1}, False),
    ],
)
def test_ingest_takes_just_what_the_schema_of_a_submission_allows(
    change: dict[str, Any], is_taken: bool
) -> None:
    kind = REGISTRY["message.submitted.v1"]
    data = {**kind.EXAMPLE, **change}
    if is_taken:
        validator(kind.TYPE).validate(data)
        read_message(HTTP_HEADERS, json.dumps(data).encode(), "kafka")
    else:
        with pytest.raises(jsonschema.ValidationError):
            validator(kind.TYPE).validate(data)
        with pytest.raises(ParseError):
            read_message(HTTP_HEADERS, json.dumps(data).encode(), "kafka")


@pytest.mark.parametrize("name", TYPES)
def test_a_required_field_that_is_missing_is_refused_by_schema_and_reader_alike(name: str) -> None:
    kind = REGISTRY[name]
    for required in validator(name).schema.get("required", ()):
        lacking = {key: value for key, value in kind.EXAMPLE.items() if key != required}
        with pytest.raises(jsonschema.ValidationError, match=required):
            validator(name).validate(lacking)
        with pytest.raises(ValueError, match=required):
            kind.model_validate(lacking)


def test_an_instant_without_an_offset_is_refused_by_schema_and_reader_alike() -> None:
    kind = REGISTRY["ticket.closed.v1"]
    vague = {**kind.EXAMPLE, "at": "2026-11-24T08:00:01"}
    with pytest.raises(jsonschema.ValidationError, match="date-time"):
        validator("ticket.closed.v1").validate(vague)
    with pytest.raises(ValueError, match="timezone"):
        kind.model_validate(vague)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_named_and_versioned_and_belongs_to_a_topic(name: str) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+\.v[1-9][0-9]*", name)
    assert REGISTRY[name].TOPIC in BY_NAME
    assert REGISTRY[name].__module__ in {module.__name__ for module in MODULES}


def test_payloads_cannot_be_changed_after_they_are_made() -> None:
    event = REGISTRY["ticket.closed.v1"].model_validate(REGISTRY["ticket.closed.v1"].EXAMPLE)
    with pytest.raises(ValueError, match="frozen"):
        event.version = 2  # type: ignore[attr-defined]


# -- the generated files on disk ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is generated, written once into a project of its own; tests change copies of it."""
    root = tmp_path_factory.mktemp("exported")
    (root / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n', encoding="utf-8")
    export.write(root)
    return root


@pytest.fixture
def project(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "project")


def test_export_writes_only_what_differs(project: Path) -> None:
    assert check.stale(project) == []
    assert export.write(project) == []
    (project / "docs/events.md").write_text("edited by hand", encoding="utf-8")
    assert export.write(project) == [Path("docs/events.md")]


def test_check_names_what_is_missing_changed_and_superfluous_with_the_cure(project: Path) -> None:
    (project / "schemas/json/sla.met.v1.json").unlink()
    (project / "schemas/examples/sla.met.v1.json").write_text("{}", encoding="utf-8")
    (project / "schemas/json/sla.gone.v1.json").write_text("{}", encoding="utf-8")
    missing, changed, superfluous = check.stale(project)
    assert missing.startswith("schemas/json/sla.met.v1.json is missing: run `make golden`")
    assert changed.startswith("schemas/examples/sla.met.v1.json is not what schemas/ says now")
    assert superfluous.startswith("schemas/json/sla.gone.v1.json belongs to no event type")
    export.write(project)
    assert check.stale(project) == []
    assert not (project / "schemas/json/sla.gone.v1.json").exists()


def test_the_first_release_fixes_the_contract_and_a_later_one_may_not_break_it(
    project: Path,
) -> None:
    released = project / export.RELEASED
    assert check.broken(project) == []
    assert export.release(project) == []
    assert check.broken(project) == []
    assert check.stale(project) == []

    promised = json.loads(released.read_text("utf-8"))
    promised["types"]["ticket.forgotten.v1"] = {"topic": "tickets", "fields": {}}
    released.write_text(json.dumps(promised), encoding="utf-8")
    assert check.broken(project) == [
        "Incompatible with release 0.1.0: ticket.forgotten.v1 is gone; keep it while it may lie in a "
        "log or have a reader."
    ]
    assert export.release(project) != []
    assert json.loads(released.read_text("utf-8")) == promised


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"topics": {}, "types": 3}', "{"])
def test_a_damaged_baseline_is_said_and_not_taken_for_a_promise(
    project: Path, content: str
) -> None:
    (project / export.RELEASED).write_text(content, encoding="utf-8")
    (problem,) = check.broken(project)
    assert problem.startswith("schemas/json/released.json cannot be read")


# -- what a release may change -----------------------------------------------------------------------------------------


@cache
def today() -> dict[str, Any]:
    return snapshot("0.1.0")


def changed(*path: Any, to: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return today's snapshot, and one in which the thing at `path` is another (None: gone)."""
    old = today()
    new = copy.deepcopy(old)
    *way, last = path
    target: Any = new
    for step in way:
        target = target[step]
    if to is None:
        del target[last]
    else:
        target[last] = to
    return old, new


def field(name: str, path: str, *rest: str) -> tuple[str, ...]:
    return ("types", name, "fields", path, *rest)


TEXT = {"types": ["string"], "required": False}


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("types", "sla.met.v1"), None, "sla.met.v1 is gone"),
        (("types", "sla.met.v1", "topic"), "tickets", "sla.met.v1 moved from topic sla to tickets"),
        (("topics", "sla"), None, "Topic sla is gone"),
        (("topics", "sla"), "ticket id", "Topic sla is keyed by ticket id"),
        (field("ticket.opened.v1", "subject"), None, "field `subject` is gone"),
        (field("ticket.opened.v1", "contact.name"), None, "field `contact.name` is gone"),
        (field("ticket.opened.v1", "subject", "required"), True, "`subject` is required now"),
        (
            field("ticket.opened.v1", "mood"),
            {"types": ["string"], "required": True},
            "field `mood` is new and required",
        ),
        (
            field("ticket.opened.v1", "contact.mood"),
            {"types": ["string"], "required": True},
            "field `contact.mood` is new and required",
        ),
        (field("ticket.opened.v1", "number", "types"), ["string"], "may no longer be integer"),
        (field("ticket.opened.v1", "follows", "types"), ["string"], "may no longer be null"),
        (field("sla.started.v1", "seconds", "types"), ["integer"], "may no longer be number"),
        (field("sla.started.v1", "due_at", "types"), ["null", "string"], "may now be null"),
        (field("ticket.opened.v1", "desk", "enum"), ["service"], "no longer allows ['technical']"),
        (field("ticket.opened.v1", "rule", "enum"), ["a"], "was free and is now one of ['a']"),
        (field("ticket.opened.v1", "number", "minimum"), 2, "minimum rose from 1 to 2"),
        (field("ticket.opened.v1", "priority", "maximum"), 3, "maximum fell from 4 to 3"),
        (field("ticket.opened.v1", "queue", "maxLength"), 64, "maxLength fell from 200 to 64"),
        (field("ticket.opened.v1", "rule", "minLength"), 1, "minLength rose from none to 1"),
        (field("ticket.opened.v1", "rule", "pattern"), "^a", "pattern changed from none to ^a"),
        (field("command.tag.v1", "add[]", "pattern"), "^a$", "pattern changed from"),
        (field("ticket.opened.v1", "number", "maximum"), 10, "maximum fell from none to 10"),
        (field("agent.set.v1", "skills{}", "maximum"), 9, "maximum fell from 10 to 9"),
        (
            field("command.escalate.v1", "facts{name}"),
            {"types": ["string"], "required": True, "maxLength": 9},
            "field `facts` was free in what it holds",
        ),
        (field("ticket.opened.v1", "contact", "is_closed"), True, "refuses unknown fields now"),
    ],
)
def test_a_planted_incompatible_change_is_refused_by_name(
    path: tuple[str, ...], to: Any, said: str
) -> None:
    problems = incompatibilities(*changed(*path, to=to))
    assert len(problems) in {1, 2}  # A type that changes is lost as one thing and won as another.
    assert any(said in problem for problem in problems)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("topics", "mood"), "customer id"),
        (("types", "ticket.opened.v2"), {"topic": "tickets", "fields": {}}),
        (field("ticket.opened.v1", "mood"), TEXT),
        (field("ticket.opened.v1", "contact.mood"), TEXT),
        (field("ticket.opened.v1", "subject", "required"), False),
        (field("ticket.opened.v1", "desk", "enum"), ["service", "technical", "sales"]),
        (field("ticket.opened.v1", "priority", "maximum"), 5),
        (field("ticket.opened.v1", "queue", "maxLength"), 300),
        (field("ticket.opened.v1", "queue", "maxLength"), None),
        (field("command.tag.v1", "add[]", "pattern"), None),
    ],
)
def test_additions_are_allowed(path: tuple[str, ...], to: Any) -> None:
    assert incompatibilities(*changed(*path, to=to)) == []


def test_a_new_optional_part_may_have_required_fields_of_its_own() -> None:
    old = today()
    new = copy.deepcopy(old)
    new["types"]["ticket.opened.v1"]["fields"] |= {
        "mood": {"types": ["object"], "required": False},
        "mood.score": {"types": ["integer"], "required": True},
    }
    assert incompatibilities(old, new) == []
    assert incompatibilities(new, old) == [
        "ticket.opened.v1: field `mood` is gone; keep it, or add a new version of the type."
    ]


def test_a_baseline_survives_its_file() -> None:
    current = today()
    assert json.loads(export._one_line_a_type(current)) == current


def test_a_changed_model_is_caught_through_its_schema() -> None:
    """The whole way: a model, its schema, its fields."""

    class Sample(Payload):
        """A sample."""

        EXAMPLE = {"size": 3}  # noqa: RUF012

        size: int
        tags: tuple[str, ...] = ()

    Sample.TYPE, Sample.TOPIC = "sample.made.v1", "tickets"
    found = fields(json_schema(Sample))
    assert found == {
        "": {"types": ["object"], "required": True},
        "size": {"types": ["integer"], "required": True},
        "tags": {"types": ["array"], "required": False},
        "tags[]": {"types": ["string"], "required": True},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "contentEncoding": "base64"}}},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "object"}, {"type": "object"}]}},
        },
    ],
)
def test_a_schema_that_cannot_be_compared_is_refused_rather_than_waved_through(
    schema: dict[str, Any],
) -> None:
    with pytest.raises(UnknownKeyword, match="a"):
        fields(schema)


# -- the AsyncAPI document ---------------------------------------------------------------------------------------------


@cache
def document() -> dict[str, Any]:
    text = (export.ROOT / export.JSON / "asyncapi.yaml").read_text("utf-8")
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


def resolved(whole: dict[str, Any], reference: str) -> Any:
    if reference.startswith("./"):
        return json.loads((export.ROOT / export.JSON / reference).read_text("utf-8"))
    node: Any = whole
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = document()
    found = references(whole)
    assert len(found) > 3 * len(REGISTRY)
    for reference in found:
        assert resolved(whole, reference)


def test_the_asyncapi_document_has_every_topic_with_its_key_partitions_and_retention() -> None:
    channels = document()["channels"]
    assert list(channels) == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        channel = channels[topic.name]
        binding = channel["bindings"]["kafka"]
        assert channel["x-signalbox-key"] == topic.key
        assert channel["x-signalbox-writer"] == topic.writer
        assert channel["x-signalbox-readers"] == list(topic.readers)
        assert binding["partitions"] == 24
        assert binding["topicConfiguration"]["retention.ms"] == topic.retention.days * 86_400_000
        assert set(channel["messages"]) == {
            name for name, kind in REGISTRY.items() if topic.name == kind.TOPIC
        }


def test_every_stage_sends_and_receives_what_the_topics_say() -> None:
    operations = document()["operations"]
    assert operations["router.tickets.send.tickets"]["action"] == "send"
    assert operations["notifier.receive.sla"]["action"] == "receive"
    assert operations["signalbox-deadletters.receive.dead-letters"]["action"] == "receive"
    assert set(asyncapi.stages()) == {
        "ingest.gateway", "ingest.normaliser", "ingest.webchat", "ingest.tickets", "router.tickets", "router.assignment",
        "router.elsewhere", "sla", "notifier", "notifier.feedback",
    }  # fmt: skip
    told = operations["router.elsewhere.send.routing"]["messages"]
    assert [one["$ref"].rpartition("/")[2] for one in told] == [
        "assignment_elsewhere.done.v1", "assignment_elsewhere.failed.v1",
    ]  # fmt: skip
    assert not [m for m in operations["router.assignment.send.routing"]["messages"] if m in told]
    other = operations["other-systems.send.inbound"]["messages"]
    assert other == [{"$ref": "#/channels/inbound/messages/message.submitted.v1"}]
    assert not [m for m in operations["ingest.gateway.send.inbound"]["messages"] if m in other]
    for stage in asyncapi.stages():
        assert f"{stage}.send.dead-letters" in operations
    for name, operation in operations.items():
        topic = operation["channel"]["$ref"].removeprefix("#/channels/")
        assert name.endswith(f".{topic}")
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"#/channels/{topic}/messages/")


@pytest.mark.parametrize("name", TYPES)
def test_the_headers_of_the_asyncapi_document_are_those_we_write(name: str) -> None:
    whole = document()
    message = whole["components"]["messages"][name]
    common = whole["components"]["schemas"]["headers"]
    envelope = Envelope(
        type=name, source="signalbox/sla/3", id="e-1", time=parse_time("2026-11-24T08:00:01Z"),
        subject="s", traceparent="00-1-2-01", sequence=1, afterparked="d-1", continues="1:7",
    )  # fmt: skip
    written = {key: value.decode() for key, value in envelope.to_headers()}
    assert set(written) == set(common["properties"])
    (example,) = message["examples"]
    for headers in (written, example["headers"]):
        jsonschema.validate(headers, common, format_checker=FORMATS)
        jsonschema.validate(headers, message["headers"]["allOf"][1])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**written, "ce_sequence": "0"}, common)


# -- the envelope on the wire ------------------------------------------------------------------------------------------

ENVELOPE = Envelope(
    type="ticket.closed.v1", source="signalbox/router.tickets/3", id="e-1",
    time=parse_time("2026-11-24T08:00:01.250Z"), subject="SB-4K7TQ2M", workspace="Лавка",
    partitionkey="b1c9", correlationid="b1c9", causationid="e-0",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", sequence=812,
    afterparked="d-1",
)  # fmt: skip
REQUIRED = {
    "specversion": "1.0", "type": "order.shipped.v1", "source": "shop", "id": "1",
    "time": "2026-11-24T10:00:01+02:00",
}  # fmt: skip


def structured(attributes: dict[str, Any]) -> tuple[tuple[tuple[str, bytes], ...], bytes]:
    kind = b"application/cloudevents+json; charset=UTF-8"
    return (("content-type", kind),), json.dumps(attributes).encode()


def binary(attributes: dict[str, str]) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())


def test_an_envelope_survives_binary_mode() -> None:
    assert read_record(ENVELOPE.to_headers(), b'{"a":1}') == (ENVELOPE, b'{"a":1}')


def test_an_envelope_survives_structured_mode_and_its_data_stay_the_same_bytes() -> None:
    attributes = {
        name.removeprefix("ce_"): value.decode()
        for name, value in ENVELOPE.to_headers()
        if name.startswith("ce_")
    }
    headers, value = structured({**attributes, "data": {"n": 1}})
    assert read_record(headers, value) == (ENVELOPE, b'{"n": 1}')


def test_a_foreign_event_needs_no_sequence_and_its_time_is_read_as_utc() -> None:
    envelope, data = read_record(binary(REQUIRED), None)
    assert envelope.sequence is None
    assert envelope.workspace == "default"
    assert envelope.time == parse_time("2026-11-24T08:00:01Z")
    assert data == b""


def test_foreign_and_null_headers_are_none_of_our_business() -> None:
    headers = (*binary(REQUIRED), ("x-blob", b"\xff\xfe"), ("ce_subject", None), ("trace", None))
    assert read_record(headers, b"{}")[0].subject is None


@pytest.mark.parametrize("name", sorted(REQUIRED))
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_or_empty_attribute_is_refused_by_name_in_both_modes(
    name: str, value: str | None
) -> None:
    attributes = {key: text for key, text in REQUIRED.items() if key != name}
    if value is not None:
        attributes[name] = value
    with pytest.raises(EnvelopeError) as refused:
        read_record(binary(attributes), b"{}")
    assert refused.value.field == name
    with pytest.raises(EnvelopeError) as refused:
        read_record(*structured(attributes))
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("attribute", "value", "problem"),
    [
        ("specversion", "0.3", "only 1.0 is understood"),
        ("time", "yesterday", "not an RFC 3339 instant"),
        ("time", "2026-11-24T08:00:01", "has no offset from UTC"),
        ("sequence", "0", "must be a whole number from 1"),
        ("sequence", "-1", "must be a whole number from 1"),
        ("sequence", "1.0", "must be a whole number from 1"),
        ("sequence", "٣", "must be a whole number from 1"),
        ("sequence", "9223372036854775808", "must be a whole number from 1"),
        ("sequence", "9" * 6000, "must be a whole number from 1"),
    ],
)
def test_an_unreadable_attribute_is_refused_and_says_what_is_wrong(
    attribute: str, value: str, problem: str
) -> None:
    with pytest.raises(EnvelopeError, match=re.escape(f"{attribute}: {problem}")):
        read_record(binary({**REQUIRED, attribute: value}), b"{}")


def test_a_header_that_is_not_utf_8_is_refused_by_name() -> None:
    with pytest.raises(EnvelopeError, match="ce_subject: is not UTF-8"):
        read_record((*binary(REQUIRED), ("ce_subject", b"\xff")), b"{}")


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"7", b'{"id": "\xff"}', b"[" * 100_000])
def test_a_structured_event_that_is_no_json_object_is_refused(value: bytes | None) -> None:
    headers, _ = structured({})
    with pytest.raises(EnvelopeError):
        read_record(headers, value)


def test_an_attribute_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="subject: must be a string"):
        read_record(*structured({**REQUIRED, "subject": 7}))


# -- topics ------------------------------------------------------------------------------------------------------------


def test_only_inbound_is_open_to_other_systems() -> None:
    assert [topic.name for topic in TOPICS if topic.is_open] == ["inbound"]


def test_every_topic_has_a_type_and_a_name_that_kafka_takes() -> None:
    for topic in TOPICS:
        assert re.fullmatch(r"[a-z][a-z-]*", topic.name)
        assert any(topic.name == kind.TOPIC for kind in REGISTRY.values())


def test_the_largest_value_fits_a_brokers_default_batch_with_room_for_headers() -> None:
    assert VALUE_BYTES_MAX <= 1_048_588 - 100_000
