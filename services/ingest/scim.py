"""SCIM 2.0 on the gateway: an identity provider says who the agents are (RFC 7643, 7644).

    GET    /scim/v2/{domain}/ServiceProviderConfig, /Schemas, /Schemas/{urn}, /ResourceTypes, /ResourceTypes/{name}
    GET    /scim/v2/{domain}/Users     POST                      Groups likewise
    POST   /scim/v2/{domain}/Users/.search
    GET    /scim/v2/{domain}/Users/{id}    PUT    PATCH    DELETE

All of it takes a key of scope `scim`. A change is answered once its rows and what the roster is told of it are in
PostgreSQL, in one transaction. Errors have SCIM's form and never repeat what was sent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, ParamSpec, TypeVar

import msgspec
from fastapi import Request
from scim2_models import Context, Group, ResourceType
from starlette.responses import Response

from chassis import logs
from chassis.auth import caller_of, needs
from chassis.clock import Clock, monotonic, pause
from chassis.errors import Unavailable
from services.ingest import metrics
from services.ingest.adapters import form, intake, json_body
from services.ingest.adapters.channel import ParseError
from services.ingest.adapters.intake import PolicySource
from services.ingest.answers import Problem, read_body
from services.ingest.core import scim, scim_patch, scim_query
from services.ingest.core.policy import ScimDomain
from services.ingest.core.scim import GROUP, ScimRefused
from services.ingest.core.scim_query import COUNT_DEFAULT, COUNT_MAX, Query
from services.ingest.paths import Paths
from services.ingest.scim_store import GroupRow, Named, Reading, ScimStore, UserRow

BASE: Final = "/scim/v2/{domain}"
MEDIA_TYPE: Final = "application/scim+json"
MEDIA_TYPES: Final = frozenset({MEDIA_TYPE, "application/json", ""})
BODY_BYTES_MAX: Final = 1024 * 1024
LOOK_SECONDS: Final = 2.0

_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"
_LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_SEARCH: Final = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_REASONS: Final[Mapping[int, str]] = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "wrong_method",
    408: "too_slow",
    409: "conflict",
    412: "stale",
    413: "too_large",
    415: "unsupported_type",
    429: "too_many",
}

P = ParamSpec("P")
T = TypeVar("T")

log = logs.get("ingest.scim")


@dataclass(frozen=True, slots=True)
class Deps:
    """What SCIM stands on. `public_url` is the gateway's address; without one, addresses in answers are paths of its host.

    What the request says of its host (`Host`) is the sender's word, so no address is built of it.
    """

    store: ScimStore
    policies: PolicySource
    clock: Clock
    public_url: str = ""
    body_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose sender has proved who they are: for which domain, by what rules, at what address."""

    request: Request
    domain: str
    rules: ScimDomain
    base: str

    def name(self, key: str) -> str:
        """Return what the path says for `key`."""
        value: str = self.request.path_params[key]
        return value

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the request."""
        return dict(self.request.query_params)


Handler = Callable[[Asked], Awaitable[Response]]


def _answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, MEDIA_TYPE)


def _error(
    status: int, detail: str, scim_type: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    body: dict[str, Any] = {"schemas": [_ERROR], "status": str(status), "detail": detail}
    if scim_type:
        body["scimType"] = scim_type
    return _answer(body, status, headers)


def _meta(asked: Asked, kind: Literal["User", "Group"], row: UserRow | GroupRow) -> dict[str, str]:
    return {
        "resourceType": kind,
        "created": _instant(row.created_at),
        "lastModified": _instant(row.updated_at),
        "location": f"{asked.base}/{kind}s/{row.scim_id}",
        "version": _etag(row.version),
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _etag(version: int) -> str:
    return f'W/"{version}"'


def _tags(header: str) -> set[str]:
    """Return the tags of If-Match or If-None-Match, weak ones like strong ones: ours are all weak."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",") if tag.strip()}


def _check_version(request: Request, version: int) -> None:
    header = request.headers.get("if-match", "").strip()
    if header and header != "*" and f'"{version}"' not in _tags(header):
        raise ScimRefused(412, "", "If-Match: it has changed since; read it again")


def _is_known(request: Request, version: int) -> bool:
    header = request.headers.get("if-none-match", "").strip()
    return bool(header) and (header == "*" or f'"{version}"' in _tags(header))


async def _aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what takes a person's whole profile apart beside the event loop: the largest that is taken costs up to a second."""
    return await asyncio.to_thread(work, *args, **kwargs)


def _missing(what: str) -> ScimRefused:
    return ScimRefused(404, "", f"id: there is no such {what}")


class Scim:
    """The endpoints' bodies."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._counters = metrics.Way("scim")

    async def handle(self, request: Request, handler: Handler) -> Response:
        """Prove who asks and for which domain, run a handler, and count what came of it."""
        began = monotonic()
        try:
            response = await handler(self._asked(request))
        except Problem as problem:
            return self.refuse(problem)
        except ScimRefused as refused:
            self._counters.refused(_REASONS.get(refused.status, "invalid"))
            return _error(refused.status, refused.detail, refused.scim_type)
        except Unavailable as error:
            self._counters.unavailable.inc()
            return _error(
                503,
                "it could not be stored now; please send it again",
                headers={"Retry-After": str(max(1, round(error.retry_after)))},
            )
        if request.method in _WRITES:
            self._counters.answered(monotonic() - began, is_repeated=False)
        return response

    def refuse(self, problem: Problem) -> Response:
        """Say in SCIM's form that somebody is turned away."""
        if problem.status == 503:
            self._counters.unavailable.inc()
        else:
            self._counters.refused(problem.reason)
        return _error(problem.status, problem.detail, headers=problem.headers)

    def _asked(self, request: Request) -> Asked:
        domain: str = request.path_params["domain"]
        file = self._deps.policies.current.file
        domains = caller_of(request.scope).domains
        if domains and domain not in domains:
            raise ScimRefused(403, "", "Authorization: the key does not open this domain")
        rules = file.scim.get(domain)
        if rules is None:
            raise ScimRefused(
                404, "", "domain: takes no SCIM; name it under `scim` in channels.yaml if it should"
            )
        url = self._deps.public_url.rstrip("/")
        return Asked(request, domain, rules, f"{url}{BASE.format(domain=domain)}")

    async def _body(self, request: Request) -> dict[str, Any]:
        if form.media_type(request.headers.get("content-type", "")) not in MEDIA_TYPES:
            raise Problem(
                415,
                "unsupported_type",
                "Unsupported media type",
                f"Content-Type: must be {MEDIA_TYPE} or application/json",
            )
        body = await read_body(request, BODY_BYTES_MAX, self._deps.body_seconds)
        try:
            json_body.check(body)
            given = msgspec.json.decode(body, type=dict[str, Any])
        except ParseError as error:
            raise ScimRefused(400, "invalidSyntax", error.detail) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ScimRefused(400, "invalidSyntax", "body: is not a JSON object") from None
        if b"\\u0000" in body or b"\x00" in body:
            scim.wrong("body: holds a NUL character")
        return given

    def _now(self) -> datetime:
        return self._deps.clock.now()

    # -------------------------------------------------------------------------------------------- users

    def _user(self, asked: Asked, row: UserRow, groups: list[Named]) -> dict[str, Any]:
        document: dict[str, Any] = {
            **row.document,
            "id": row.scim_id,
            "active": scim.is_active(row.document),
        }
        if groups:
            document["groups"] = [
                {
                    "value": group.scim_id,
                    "display": group.name,
                    "type": "direct",
                    "$ref": f"{asked.base}/Groups/{group.scim_id}",
                }
                for group in groups
            ]
        document["meta"] = _meta(asked, "User", row)
        return document

    async def _user_answer(
        self, asked: Asked, work: Reading, scim_id: str, status: int = 200
    ) -> Response:
        row = await work.user(scim_id)
        if row is None:
            raise _missing("user")
        if asked.request.method == "GET" and _is_known(asked.request, row.version):
            return Response(status_code=304, headers={"ETag": _etag(row.version)})
        query = scim_query.read_query(_shown(asked.query), {})
        groups = await work.groups_of([scim_id]) if query.wants("groups") else {scim_id: []}
        document = self._user(asked, row, groups[scim_id])
        headers = {"ETag": _etag(row.version), "Location": document["meta"]["location"]}
        return _answer(scim_query.selected(document, query), status, headers)

    async def users(self, asked: Asked) -> Response:
        """List users."""
        return await self._users(asked, asked.query)

    async def search_users(self, asked: Asked) -> Response:
        """List users as a body asks for."""
        return await self._users(asked, _search(await self._body(asked.request)))

    async def _users(self, asked: Asked, given: Mapping[str, str]) -> Response:
        query = scim_query.read_query(given, scim_query.USER_FIELDS)
        async with self._deps.store.reading(asked.domain) as work:
            total, rows = await work.users(query)
            ids = [row.scim_id for row in rows]
            groups = await work.groups_of(ids) if query.wants("groups") else {}
        found = [self._user(asked, row, groups.get(row.scim_id, [])) for row in rows]
        return _page(total, query, found)

    async def user(self, asked: Asked) -> Response:
        """Tell of one user."""
        async with self._deps.store.reading(asked.domain) as work:
            return await self._user_answer(asked, work, asked.name("id"))

    async def add_user(self, asked: Asked) -> Response:
        """Add a user, and so an agent."""
        document = await _aside(scim.read_user, await self._body(asked.request))
        scim_id = intake.new_id()
        agent_id = scim.agent_id_of(document, scim_id)
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            await work.add_user(scim_id, agent_id, scim.with_agent_id(document, agent_id))
            return await self._user_answer(asked, work, scim_id, 201)

    async def replace_user(self, asked: Asked) -> Response:
        """Put a user in the place of one."""
        body = await self._body(asked.request)
        return await self._change_user(asked, lambda before: scim.read_replacement(body, before))

    async def patch_user(self, asked: Asked) -> Response:
        """Change parts of a user."""
        operations = scim_patch.read_operations(await self._body(asked.request))
        return await self._change_user(
            asked, lambda before: scim_patch.patched_user(before, operations)
        )

    async def _change_user(
        self, asked: Asked, change: Callable[[scim.Document], scim.Document]
    ) -> Response:
        scim_id = asked.name("id")
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            row = await work.user(scim_id)
            if row is None:
                raise _missing("user")
            _check_version(asked.request, row.version)
            document = scim.with_agent_id(await _aside(change, row.document), row.agent_id)
            await work.set_user(row, document)
            return await self._user_answer(asked, work, scim_id)

    async def remove_user(self, asked: Asked) -> Response:
        """Remove a user, and so an agent."""
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            row = await work.user(asked.name("id"))
            if row is None:
                raise _missing("user")
            _check_version(asked.request, row.version)
            await work.remove_user(row)
        return Response(status_code=204)

    # ------------------------------------------------------------------------------------------- groups

    def _group(self, asked: Asked, row: GroupRow, members: list[Named] | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemas": [GROUP],
            "id": row.scim_id,
            "displayName": row.display_name,
        }
        if row.external_id is not None:
            document["externalId"] = row.external_id
        if members is not None:
            document["members"] = [
                {
                    "value": member.scim_id,
                    "display": member.name,
                    "type": "User",
                    "$ref": f"{asked.base}/Users/{member.scim_id}",
                }
                for member in members
            ]
        document["meta"] = _meta(asked, "Group", row)
        return document

    async def _group_answer(
        self, asked: Asked, work: Reading, scim_id: str, status: int = 200
    ) -> Response:
        row = await work.group(scim_id)
        if row is None:
            raise _missing("group")
        if asked.request.method == "GET" and _is_known(asked.request, row.version):
            return Response(status_code=304, headers={"ETag": _etag(row.version)})
        query = scim_query.read_query(_shown(asked.query), {})
        members = await work.members([scim_id]) if query.wants("members") else {}
        document = self._group(asked, row, members.get(scim_id))
        headers = {"ETag": _etag(row.version), "Location": document["meta"]["location"]}
        return _answer(scim_query.selected(document, query), status, headers)

    async def groups(self, asked: Asked) -> Response:
        """List groups."""
        return await self._groups(asked, asked.query)

    async def search_groups(self, asked: Asked) -> Response:
        """List groups as a body asks for."""
        return await self._groups(asked, _search(await self._body(asked.request)))

    async def _groups(self, asked: Asked, given: Mapping[str, str]) -> Response:
        query = scim_query.read_query(given, scim_query.GROUP_FIELDS)
        async with self._deps.store.reading(asked.domain) as work:
            total, rows = await work.groups(query)
            ids = [row.scim_id for row in rows]
            members = await work.members(ids) if query.wants("members") else {}
        found = [self._group(asked, row, members.get(row.scim_id)) for row in rows]
        return _page(total, query, found)

    async def group(self, asked: Asked) -> Response:
        """Tell of one group."""
        async with self._deps.store.reading(asked.domain) as work:
            return await self._group_answer(asked, work, asked.name("id"))

    async def add_group(self, asked: Asked) -> Response:
        """Add a group: its members get its queue, skill or language."""
        given = scim_patch.read_group(await self._body(asked.request))
        scim_id = intake.new_id()
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            await work.add_group(scim_id, given.display_name, given.external_id, given.user_ids)
            return await self._group_answer(asked, work, scim_id, 201)

    async def replace_group(self, asked: Asked) -> Response:
        """Put a group in the place of one: name and members are what is said, and nothing else."""
        given = scim_patch.read_group(await self._body(asked.request))
        scim_id = asked.name("id")
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            row = await self._group_to_change(asked, work)
            before = await work.member_ids(scim_id)
            after = frozenset(given.user_ids)
            await work.set_group(row, given.display_name, given.external_id, before, after)
            return await self._group_answer(asked, work, scim_id)

    async def patch_group(self, asked: Asked) -> Response:
        """Change a group's name or members."""
        change = scim_patch.patched_group(
            scim_patch.read_operations(await self._body(asked.request))
        )
        scim_id = asked.name("id")
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            row = await self._group_to_change(asked, work)
            before = await work.member_ids(scim_id)
            await work.set_group(
                row,
                change.sets.get("displayName") or row.display_name,
                change.sets.get("externalId", row.external_id),
                before,
                scim_patch.members_after(before, change),
            )
            return await self._group_answer(asked, work, scim_id)

    async def _group_to_change(self, asked: Asked, work: Reading) -> GroupRow:
        row = await work.group(asked.name("id"))
        if row is None:
            raise _missing("group")
        _check_version(asked.request, row.version)
        return row

    async def remove_group(self, asked: Asked) -> Response:
        """Remove a group: its members lose what it gave."""
        async with self._deps.store.writing(asked.domain, asked.rules, self._now()) as work:
            row = await self._group_to_change(asked, work)
            await work.remove_group(row)
        return Response(status_code=204)

    # ---------------------------------------------------------------------------------------- discovery

    async def config(self, asked: Asked) -> Response:
        """Tell what is done here of RFC 7644."""
        return _answer(_config(asked.base))

    async def schemas(self, asked: Asked) -> Response:
        """Tell which attributes there are."""
        found = [_located(one, asked.base, "Schemas") for one in _SCHEMAS]
        return _page(len(found), _ALL, found)

    async def schema(self, asked: Asked) -> Response:
        """Tell of one schema."""
        return _one(_SCHEMAS, asked, "Schemas", "schema")

    async def resource_types(self, asked: Asked) -> Response:
        """Tell which kinds of resources there are."""
        found = [_located(one, asked.base, "ResourceTypes") for one in _RESOURCE_TYPES]
        return _page(len(found), _ALL, found)

    async def resource_type(self, asked: Asked) -> Response:
        """Tell of one kind of resource."""
        return _one(_RESOURCE_TYPES, asked, "ResourceTypes", "resource type")

    async def nowhere(self, asked: Asked) -> Response:
        """Tell that there is no such endpoint."""
        del asked
        raise ScimRefused(404, "", "there is no such endpoint")

    async def not_done(self, asked: Asked) -> Response:
        """Tell that a part of RFC 7644 is not done here."""
        del asked
        raise ScimRefused(501, "", "this part of SCIM is not done here")


_ALL: Final = Query(None, 1, COUNT_MAX)


def _shown(given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that count for one resource: which of its attributes are told."""
    return {name: given[name] for name in ("attributes", "excludedAttributes") if name in given}


def _search(body: Mapping[str, Any]) -> dict[str, str]:
    """Return what a search's body asks, as parameters of a request ask it.

    Raises:
        ScimRefused: 400, it is no search.
    """
    schemas = body.get("schemas", [_SEARCH])
    if not isinstance(schemas, list) or _SEARCH not in schemas:
        raise ScimRefused(400, "invalidSyntax", f"schemas: must be [{_SEARCH}]")
    found: dict[str, str] = {}
    for name in ("filter", "startIndex", "count", "attributes", "excludedAttributes"):
        match body.get(name):
            case None:
                pass
            case str() | int() as value:
                found[name] = str(value)
            case list() as values if all(isinstance(value, str) for value in values):
                found[name] = ",".join(values)
            case _:
                raise ScimRefused(400, "invalidSyntax", f"{name}: has the wrong type")
    return found


def _page(total: int, query: Query, found: list[dict[str, Any]]) -> Response:
    return _answer(
        {
            "schemas": [_LIST],
            "totalResults": total,
            "startIndex": query.start,
            "itemsPerPage": len(found),
            "Resources": [scim_query.selected(one, query) for one in found],
        }
    )


def _config(base: str) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": COUNT_MAX},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "pagination": {
            "cursor": False,
            "index": True,
            "defaultPaginationMethod": "index",
            "defaultPageSize": COUNT_DEFAULT,
            "maxPageSize": COUNT_MAX,
        },
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer key",
                "description": "A key, or an access token, with the scope scim",
                "primary": True,
            }
        ],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": f"{base}/ServiceProviderConfig",
        },
    }


def _dumped(model: Any) -> dict[str, Any]:
    made: dict[str, Any] = model.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    return made


_SCHEMAS: Final = tuple(_dumped(model.to_schema()) for model in scim.MODELS)
_RESOURCE_TYPES: Final = tuple(
    _dumped(ResourceType.from_resource(model)) for model in (scim.ScimUser, Group)
)


def _located(one: dict[str, Any], base: str, endpoint: str) -> dict[str, Any]:
    kind = "Schema" if endpoint == "Schemas" else "ResourceType"
    meta = {"resourceType": kind, "location": f"{base}/{endpoint}/{one['id']}"}
    return {**one, "meta": meta}


def _one(known: tuple[dict[str, Any], ...], asked: Asked, endpoint: str, what: str) -> Response:
    for one in known:
        if one["id"] == asked.name("id"):
            return _answer(_located(one, asked.base, endpoint))
    raise _missing(what)


# ---------------------------------------------------------------------------------------------- mounting


def mount(app: Paths, deps: Deps) -> None:
    """Add SCIM's paths to the gateway."""
    served = Scim(deps)

    def add(path: str, handlers: Mapping[str, Handler]) -> None:
        allowed = ", ".join(handlers)

        async def answer(request: Request) -> Response:
            handler = handlers.get(request.method)
            if handler is None:
                return _error(405, f"this path knows {allowed}", headers={"Allow": allowed})
            return await served.handle(request, handler)

        app.add(f"{BASE}{path}", _METHODS, answer, needs("scim"), served.refuse)

    add("/ServiceProviderConfig", {"GET": served.config})
    add("/Schemas", {"GET": served.schemas})
    add("/Schemas/{id}", {"GET": served.schema})
    add("/ResourceTypes", {"GET": served.resource_types})
    add("/ResourceTypes/{id}", {"GET": served.resource_type})
    add("/Users", {"GET": served.users, "POST": served.add_user})
    add("/Users/.search", {"POST": served.search_users})
    add("/Groups", {"GET": served.groups, "POST": served.add_group})
    add("/Groups/.search", {"POST": served.search_groups})
    add("/Bulk", {"POST": served.not_done})
    add("/Me", {"GET": served.not_done})
    add("/.search", {"POST": served.not_done})
    add(
        "/Users/{id}",
        {
            "GET": served.user,
            "PUT": served.replace_user,
            "PATCH": served.patch_user,
            "DELETE": served.remove_user,
        },
    )
    add(
        "/Groups/{id}",
        {
            "GET": served.group,
            "PUT": served.replace_group,
            "PATCH": served.patch_group,
            "DELETE": served.remove_group,
        },
    )
    # Whatever else lies below a domain: SCIM's clients want their own form of 404.
    for path in ("/{kind}", "/{kind}/{id}", "/{kind}/{id}/{part}"):
        add(path, dict.fromkeys(_METHODS, served.nowhere))


async def follow_policy(deps: Deps, stopping: asyncio.Event) -> None:
    """Tell the roster what a change of `scim` in channels.yaml means for agents that were provisioned before.

    At the start, and whenever the section changes. So is whoever was left due by a change of many whose process ended.
    What cannot be told now is tried again.
    """
    told: dict[str, ScimDomain] = {}
    while not stopping.is_set():
        for domain, rules in deps.policies.current.file.scim.items():
            now = deps.clock.now()
            try:
                if told.get(domain) != rules:
                    await deps.store.tell_all(domain, rules, now)
                    told[domain] = rules
                elif await deps.store.has_due(domain):
                    await deps.store.tell_due(domain, rules, now)
            except Unavailable:
                log.warning("scim_put_off", domain=domain)
        await pause(stopping, LOOK_SECONDS)
