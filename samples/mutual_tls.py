"""A service that only its friends can reach: certificates, a server that knows them, and who may do what.

python samples/mutual_tls.py

docs/how-to/mutual-tls.md does the same by hand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lightlink
from lightlink.certs import CertificateAuthority


def make_service(url: str | None = None, tls: lightlink.TLS | None = None) -> lightlink.Service:
    """Return the service. With mutual TLS its name is the identity in its certificate."""
    service = lightlink.Service("math", url, version="1.0.0", tls=tls)

    @service.rpc
    def add(a: int, b: int) -> int:
        return a + b

    return service


def identity(certs: Path, name: str) -> lightlink.TLS:
    """Return the three files that a program needs; ca.pem is the same for all."""
    return lightlink.TLS(ca=certs / "ca.pem", cert=certs / f"{name}.pem", key=certs / f"{name}.key")


def main(certs: Path) -> None:
    """Make certificates in a folder, run a server and the service with them, and try who gets in."""
    authority = CertificateAuthority.create(certs)
    authority.issue_server(["localhost", "127.0.0.1"])
    authority.issue("math", "service")
    authority.issue("web", "client")

    with lightlink.EmbeddedServer(tls=certs) as server, make_service(server.url, identity(certs, "math")):
        with lightlink.connect(server.url, tls=identity(certs, "web")) as client:
            print("1 + 2 =", client.call("math", "add", {"a": 1, "b": 2}))

            # A client may call services and publish events. It may not listen to what others say.
            try:
                client.subscribe("events.>")
            except lightlink.PermissionDenied as error:
                print("refused:", error)

        # Whoever has no certificate of this authority does not get in, and is told why.
        stranger = CertificateAuthority.create(certs / "elsewhere")
        stranger.issue("web", "client")
        tls = identity(certs / "elsewhere", "web")
        try:
            lightlink.connect(server.url, tls=lightlink.TLS(ca=certs / "ca.pem", cert=tls.cert, key=tls.key))
        except lightlink.AuthenticationError as error:
            print("kept out:", error)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "certs")
