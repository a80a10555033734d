"""A real Kubernetes API server on this machine: etcd and kube-apiserver, built from their Go modules, no cluster around them.

It admits, refuses and stores as any other does; nothing runs pods. `running()` starts it and ends it with all that it
left. Building takes some ten minutes of one core, once; what is built is kept (`helm_tools.state`).

`python -m deploy.test.apiserver build` builds what is missing.
"""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.test.crds import KUBERNETES, module_folder
from deploy.test.helm_tools import ToolMissing, found, run, state

ETCD: Final = "v3.6.8"
START_SECONDS: Final = 120.0


def binaries() -> tuple[Path, Path] | None:
    """Return etcd and kube-apiserver where both are here: ours, or Debian's etcd-server."""
    etcd, server = found("etcd36") or found("etcd"), found("kube-apiserver")
    return (etcd, server) if etcd and server else None


def build() -> tuple[Path, Path]:
    """Build what is missing, at low priority.

    Raises:
        ToolMissing: there is no Go, or a module cannot be had.
    """
    if found("kube-apiserver") is None:
        version = KUBERNETES.removeprefix("v1.")
        source = module_folder(f"k8s.io/kubernetes@{KUBERNETES}") / "go.mod"
        # Its go.mod points its staging modules at folders that the published module has not. A module around it, which
        # replaces each by the one published beside it, builds it as it is.
        staged = [
            line.split()[0]
            for line in source.read_text(encoding="utf-8").splitlines()
            if line.startswith("\tk8s.io/") and "=> ./staging" in line
        ]
        replaced = "\n".join(f"\t{one} => {one} v0.{version}" for one in staged)
        flag = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
        numbers = dict(zip(("gitMajor", "gitMinor"), KUBERNETES[1:].split("."), strict=False))
        flag += "".join(f" -X k8s.io/component-base/version.{k}={v}" for k, v in numbers.items())
        _go("kube-apiserver", f"k8s.io/kubernetes {KUBERNETES}", "k8s.io/kubernetes/cmd/kube-apiserver",
            f"replace (\n{replaced}\n)", flag)  # fmt: skip
    if found("etcd36") is None and found("etcd") is None:
        _go("etcd36", f"go.etcd.io/etcd/server/v3 {ETCD}", "go.etcd.io/etcd/server/v3", "", "")
    made = binaries()
    assert made is not None
    return made


def _go(name: str, requirement: str, package: str, more: str, flags: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "go.mod").write_text(
            f"module x\n\ngo 1.25.0\n\nrequire {requirement}\n{more}\n", encoding="utf-8"
        )
        done = run(
            [
                *("nice", "-n", "19", "go", "build", "-trimpath", "-ldflags", f"-s -w {flags}"),
                *("-o", str(state() / "bin" / name), package),
            ],
            folder=Path(folder),
            environment={"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"},
        )
    if done.returncode:
        raise ToolMissing(f"{name} could not be built: {done.stderr.strip()[-400:]}")


# ------------------------------------------------------------------------------------------------ the server


class ApiServer:
    """One that runs: its kubeconfig is an administrator's."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        tool = found("kubectl")
        if tool is None:
            raise ToolMissing("there is no kubectl: python -m deploy.test.helm_tools")
        self._kubectl = str(tool)

    def kubectl(
        self, *arguments: str, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `given` is its standard input."""
        return run([self._kubectl, "--kubeconfig", str(self.kubeconfig), *arguments], given=given)

    def admit(self, manifest: str) -> subprocess.CompletedProcess[str]:
        """Have objects judged as if they were applied, strictly, and nothing stored."""
        return self.kubectl(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
            "--namespace", "signalbox", "--filename", "-", given=manifest,
        )  # fmt: skip


@contextlib.contextmanager
def running() -> Iterator[ApiServer]:
    """Start an API server with an empty store; end it, and remove its files, in the end.

    Raises:
        ToolMissing: it is not built, or does not start.
    """
    tools = binaries()
    if tools is None:
        raise ToolMissing("no API server is built: python -m deploy.test.apiserver build")
    etcd, server = tools
    with tempfile.TemporaryDirectory(prefix="apiserver-") as name, contextlib.ExitStack() as ends:
        folder = Path(name)
        client, peer, port = _ports(3)
        _certificates(folder)
        ends.enter_context(
            _process(
                [
                    *(str(etcd), "--name=d", f"--data-dir={folder}/etcd"),
                    f"--listen-client-urls=http://127.0.0.1:{client}",
                    f"--advertise-client-urls=http://127.0.0.1:{client}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-cluster=d=http://127.0.0.1:{peer}",
                ],
                folder / "etcd.log",
            )
        )
        process = ends.enter_context(
            _process(
                [
                    *(str(server), f"--etcd-servers=http://127.0.0.1:{client}"),
                    *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"),
                    *(f"--secure-port={port}", "--endpoint-reconciler-type=none"),
                    f"--tls-cert-file={folder}/server.crt",
                    f"--tls-private-key-file={folder}/server.key",
                    f"--client-ca-file={folder}/ca.crt",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={folder}/server.key",
                    f"--service-account-signing-key-file={folder}/server.key",
                    "--service-cluster-ip-range=10.96.0.0/16",
                    *("--authorization-mode=RBAC", "--profiling=false"),
                ],
                folder / "apiserver.log",
            )
        )
        found_there = ApiServer(_kubeconfig(folder, port))
        _await(found_there, process, folder / "apiserver.log")
        yield found_there


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the binaries that were built above
            command, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        # Nothing is stored that anybody wants: an API server's own drain takes up to a minute.
        process.kill()
        process.wait()


def _await(server: ApiServer, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while server.kubectl("get", "--raw", "/readyz").returncode:
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(encoding="utf-8", errors="replace")[-800:]
            raise ToolMissing(f"the API server does not start: {said}")
        time.sleep(0.3)


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "kubeconfig"
    files = {"client-certificate": "admin.crt", "client-key": "admin.key"}
    about = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "it",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority": str(folder / "ca.crt"),
                },
            }
        ],
        "users": [{"name": "admin", "user": {k: str(folder / v) for k, v in files.items()}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "admin"}}],
        "current-context": "it",
    }
    path.write_text(json.dumps(about), encoding="utf-8")
    return path


def _certificates(folder: Path) -> None:
    """Write an authority's, the server's and an administrator's certificate, good for a day."""
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _name("signalbox-test")
    _write(
        folder / "ca.crt", _certificate(root, root, authority.public_key(), authority, is_ca=True)
    )
    for name, subject in (
        ("server", _name("apiserver")),
        ("admin", _name("admin", "system:masters")),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / f"{name}.crt", _certificate(subject, root, key.public_key(), authority))
        path = folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )


def _name(common: str, organization: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)  # noqa: TID251 - TLS compares it with the machine's clock
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return made.sign(signer, hashes.SHA256())


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m deploy.test.apiserver build")
    print(*build(), sep="\n")  # noqa: T201
