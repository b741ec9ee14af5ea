from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from helpers.edge import UdpRelay, url_of
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython, StartServer
    from helpers.edge import Link, Serve, StartGateway

    from lightlink.gateway import Gateway

BEGIN = """
import os, signal, sys, threading
import lightlink
url, certs = sys.argv[1:3]
tls = lightlink.TLS(f"{certs}/ca.pem", f"{certs}/keeper.pem", f"{certs}/keeper.key")
client = lightlink.connect(url, name="keeper", tls=tls)
client.set_state("lifecycle", 1)
"""


def test_a_forked_child_opens_its_own_connection(python: StartPython, gateway: Gateway, identities: Path) -> None:
    process = python(
        BEGIN
        + """
child = os.fork()
if child == 0:
    client.set_state("lifecycle", 2)
    client.close()
    os._exit(7)
assert os.waitpid(child, 0)[1] == 7 << 8
assert client.get_state("lifecycle") == 2
client.close()
print("done")
""",
        url_of(gateway),
        identities,
    )
    ended = process.wait()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("end", ["client.close()", "", "client.publish('events.x', 1); sys.exit(0)"])
def test_the_interpreter_exits_with_or_without_close(
    python: StartPython, start_gateway: StartGateway, identities: Path, end: str
) -> None:
    gateway = start_gateway()
    ended = python(BEGIN + end, url_of(gateway), identities).wait()
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_gateway_notices_that_a_client_closes(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway()
    client = link("keeper", url_of(gateway))
    assert gateway.counts.streams == 1
    client.close()
    eventually(lambda: (gateway.counts.streams, gateway.counts.connections) == (0, 0))


def test_stop_ends_run_and_a_stopped_gateway_does_not_restart(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    running = threading.Thread(target=gateway.run, daemon=True)
    running.start()
    gateway.stop()
    running.join(30)
    assert not running.is_alive()
    with pytest.raises(lightlink.NotReady, match="gateway"):
        gateway.start()


def test_ctrl_c_interrupts_a_call_that_gets_no_answer(python: StartPython, gateway: Gateway, identities: Path) -> None:
    with UdpRelay(gateway.address[1]) as relay:
        process = python(
            BEGIN
            + """
print("ready", flush=True)
input()
try:
    print("waiting", flush=True)
    client.flush(timeout=60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
""",
            relay.url,
            identities,
        )
        process.wait_line("ready")
        relay.is_open = False
        process.send_line()
        process.wait_line("waiting")
        process.signal(signal.SIGINT)
        process.wait_line("interrupted")
        assert process.wait().returncode == 0


def test_a_client_reconnects_to_a_restarted_server(
    identities: Path, fresh_server: StartServer, start_gateway: StartGateway, link: Link
) -> None:
    server = fresh_server(tls=identities)
    gateway = start_gateway(server.url)
    client = link("web", url_of(gateway))
    seen: list[lightlink.Status] = []
    client.on_status_change(seen.append)
    server.kill()
    eventually(lambda: seen == [lightlink.Status.RECONNECTING])
    server.start()
    eventually(lambda: seen == [lightlink.Status.RECONNECTING, lightlink.Status.CONNECTED])
    client.flush(timeout=20)


def test_a_large_file_survives_loss_and_migrations(gateway: Gateway, link: Link, tmp_path: Path, serve: Serve) -> None:
    content = bytes(range(256)) * 4 * 4096
    (tmp_path / "data").write_bytes(content)
    with UdpRelay(gateway.address[1]) as relay:
        client = link("keeper", relay.url)
        relay.loss = 0.01
        moved: list[int] = []

        def move(done: int, total: int | None) -> None:
            assert total
            if done >= (len(moved) + 1) * total // 6:
                moved.append(done)
                relay.move()

        info = client.upload(tmp_path / "data", progress=move)
        client.download(info.id, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content
        assert len(moved) >= 5
        client.close()
