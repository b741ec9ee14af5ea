"""What becomes of a client when its process forks, is interrupted or ends: in scripts, and in a notebook's kernel."""

from __future__ import annotations

import queue
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python
from helpers.waiting import eventually
from jupyter_client.manager import KernelManager

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer

ASYNCIO = "import sys; sys.modules['uvloop'] = None\n"
UVLOOP = "import uvloop\n"
# Python warns of a fork while threads run, from 3.12 on; it is what is tested here.
FORK_OPTIONS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


@pytest.fixture(params=[ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """The start of a snippet that chooses the event loop."""
    if request.param is UVLOOP:
        pytest.importorskip("uvloop", reason="uvloop is an extra")
    chosen: str = request.param
    return chosen


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[str]:
    """The name of a running service with a method ``pid`` that returns what it is given."""
    running = lightlink.Service(prefix, url)
    running.register("echo", lambda **given: given)
    with running:
        yield prefix


# Exit -----------------------------------------------------------------------------------------------------------------

EXITS = {
    "at the end": "",
    "by sys.exit": "sys.exit(0)",
    "with a subscription": "client.subscribe('x', print)",
    "with a reader in a thread": "threading.Thread(target=list, args=(client.subscribe('x'),), daemon=True).start()",
    "with a call under way": "client.submit(sys.argv[2], 'nobody', timeout=60)",
    "with a service": "lightlink.Service('left', client).start()",
    "with a closed client": "client.close()",
    "with many clients": "more = [lightlink.connect(sys.argv[1]) for _ in range(5)]",
    "with threads of its own": "threading.Thread(target=client.flush).start()",
}


# Less than what hangs there would take: timeouts of 60 s, or for ever. It is a second on a machine with time.
SOON = 45.0


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_ends_soon_with_a_client_and_delivers(how: str, loop: str, url: str, prefix: str) -> None:
    code = f"""
import sys, threading, time
import lightlink
client = lightlink.connect(sys.argv[1])
for n in range(100):
    client.publish(sys.argv[2], n)
print(time.monotonic(), flush=True)
{EXITS[how]}
"""
    with lightlink.connect(url) as other, other.subscribe(prefix) as subscription:
        result = run_python(loop + code, url, prefix, timeout=100)
        ended = time.monotonic()
        assert (result.returncode, result.stderr) == (0, "")
        assert ended - float(result.stdout) < SOON
        assert [subscription.get(timeout=30).data for _ in range(100)] == list(range(100))


def test_the_interpreter_ends_soon_when_the_server_is_gone(loop: str, fresh_server: StartServer) -> None:
    server = fresh_server()
    code = """
import sys, time
import lightlink
client = lightlink.connect(sys.argv[1])
print("connected", flush=True)
input()
for _ in range(100):
    client.publish("x", 1)
print(time.monotonic(), flush=True)
"""
    from helpers.process import PythonProcess

    with PythonProcess(loop + code, server.url) as process:
        process.wait_line("connected")
        server.kill()
        process.send_line()
        result = process.wait(100)
        ended = time.monotonic()
    assert result.returncode == 0
    assert ended - float(result.stdout.split()[-1]) < SOON


def test_the_interpreter_ends_soon_on_a_line_that_hangs(loop: str, proxy: Any) -> None:
    line = proxy()
    code = """
import sys, time
import lightlink
clients = [lightlink.connect(sys.argv[1]) for _ in range(3)]
print("connected", flush=True)
input()
for client in clients:
    client.publish("x", bytes(900_000))
print(time.monotonic(), flush=True)
"""
    from helpers.process import PythonProcess

    with PythonProcess(loop + code, line.url) as process:
        process.wait_line("connected")
        line.pause()
        process.send_line()
        result = process.wait(100)
        ended = time.monotonic()
    assert result.returncode == 0
    assert "not everything was delivered before exit" in result.stderr
    assert ended - float(result.stdout.split()[-1]) < SOON


# Ctrl-C ---------------------------------------------------------------------------------------------------------------

WAITS = {
    "call": "client.call(sys.argv[2], 'wait', timeout=60)",
    "proxy": "client.service(sys.argv[2], timeout=60).wait()",
    "result": "client.submit(sys.argv[2], 'wait', timeout=60).result()",
    "get": "subscription.get()",
    "get with timeout": "subscription.get(timeout=60)",
    "iteration": "list(subscription)",
    "flush": "hung.flush(timeout=60)",
    "connect": "lightlink.connect(sys.argv[3], connect_timeout=60)",
    "full outbox": "[full.publish('x', bytes(100_000)) for _ in range(1000)]",
    "wait_connected": "down.wait_connected(60)",
}


@pytest.mark.parametrize("what", WAITS)
def test_an_interrupt_ends_the_wait_and_leaves_the_client_usable(
    what: str, python: StartPython, proxy: Any, url: str, prefix: str
) -> None:
    line, severed = proxy(), proxy()
    service = lightlink.Service(prefix, url)
    service.register("wait", lambda: time.sleep(3600))
    service.register("echo", lambda x: x)
    code = f"""
import sys, time
import lightlink
client = lightlink.connect(sys.argv[1])
hung, full = lightlink.connect(sys.argv[3]), lightlink.connect(sys.argv[3], outbox_bytes=10_000, outbox_timeout=60)
down = lightlink.connect(sys.argv[4])
subscription = client.subscribe(sys.argv[2])
print("connected", flush=True)
input()
while down.status is lightlink.Status.CONNECTED:
    time.sleep(0.01)
try:
    print("waiting", flush=True)
    {WAITS[what]}
except KeyboardInterrupt:
    print("interrupted", client.call(sys.argv[2], "echo", {{"x": 1}}), flush=True)
for each in (hung, full, down):
    each.close(timeout=0.1)
client.close()
"""
    service.start()
    process = python(code, url, prefix, line.url, severed.url)
    process.wait_line("connected")
    line.pause()
    severed.refuse()
    severed.cut()
    process.send_line()
    process.wait_line("waiting")
    eventually(lambda: _sleeps(process.pid))
    process.signal(signal.SIGINT)
    result = process.wait()
    assert result.stdout.endswith("interrupted 1\n"), result
    assert "Traceback" not in result.stderr
    service._pool.stop(0)  # its sleeping handler is not waited for
    service.stop(timeout=0.1)


def _sleeps(pid: int) -> bool:
    """Whether a process's main thread waits for something."""
    from pathlib import Path

    return Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


# Forks ----------------------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading, time, multiprocessing
import lightlink
url, service = sys.argv[1:3]
client = lightlink.connect(url)
call = lambda who, n=1, client=client: client.call(service, "echo", {"who": who, "n": n})["who"]
assert call("before") == "before"
"""


def run_fork(code: str, loop: str, url: str, service: str) -> str:
    result = run_python(loop + FORK + code, url, service, timeout=100, options=FORK_OPTIONS)
    # That subscriptions and services stay behind is said once in each child.
    said = [line for line in result.stderr.splitlines() if not line.startswith("lightlink: in process ")]
    assert (result.returncode, said) == (0, []), result
    return result.stdout


ENDS = {
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "close": "client.close(); os._exit(0)",
    "with block": "client.__exit__(None, None, None); sys.exit(0)",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "signal.signal(signal.SIGABRT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGABRT)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_client_works_in_parent_and_child_whatever_its_end(end: str, loop: str, url: str, service: str) -> None:
    code = f"""
pid = os.fork()
if pid == 0:
    print(call("child"), flush=True)
    {ENDS[end]}
os.waitpid(pid, 0)
print(call("parent"), client._connection.session.losses)
"""
    assert run_fork(code, loop, url, service) == "child\nparent 0\n"


def test_no_reply_crosses_between_parent_and_children(loop: str, url: str, service: str) -> None:
    code = """
pids = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if all(call(f"child {child}", n) == f"child {child}" for n in range(200)) else 1)
    pids.append(pid)
assert all(call("parent", n) == "parent" for n in range(200))
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""
    assert run_fork(code, loop, url, service) == "[0, 0, 0, 0]\n"


def test_forks_from_a_busy_process_do_not_hang_the_children(loop: str, url: str, service: str) -> None:
    code = """
stop = threading.Event()
def busy():
    while not stop.is_set():
        call("busy")
        client.publish("noise", 1)
        client.subscribe("noise", lambda data: None).stop()
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            os._exit(0 if call("child") == "child" else 1)
        except BaseException as exc:
            print(repr(exc), flush=True)
            os._exit(2)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(set(codes), call("parent"))
"""
    assert run_fork(code, loop, url, service) == "{0} parent\n"


def test_multiprocessing_by_fork_works(loop: str, url: str, service: str) -> None:
    code = """
def work(n):
    return call(f"task {n}")
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    print(sorted(pool.map(work, range(6))))
print(call("parent"))
"""
    expected = str([f"task {n}" for n in range(6)])
    assert run_fork(code, loop, url, service) == f"{expected}\nparent\n"


def test_a_call_under_way_in_the_parent_is_answered_there(loop: str, url: str, service: str) -> None:
    code = """
future = client.submit(service, "echo", {"who": "future"})
pid = os.fork()
if pid == 0:
    os._exit(0 if call("child") == "child" else 1)
print(future.result(30)["who"], os.waitpid(pid, 0)[1])
"""
    assert run_fork(code, loop, url, service) == "future 0\n"


def test_subscriptions_and_services_stay_with_the_parent(loop: str, url: str, service: str, prefix: str) -> None:
    code = """
subscription = client.subscribe(service + ".x")
handled = []
handler = client.subscribe(service + ".x", handled.append)
own = lightlink.Service("own-" + service, client)
own.register("pid", os.getpid)
own.start()
pid = os.fork()
if pid == 0:
    for use in (lambda: subscription.get(timeout=30), lambda: list(subscription)):
        try:
            print("child got", use(), flush=True)
        except lightlink.ClosedError as exc:
            print(str(exc).split()[-4:], flush=True)
    subscription.stop()
    handler.stop()
    own.stop()
    print(client.call("own-" + service, "pid") == os.getppid(), flush=True)
    client.publish(service + ".x", "from the child")
    client.close()
    os._exit(0)
os.waitpid(pid, 0)
print(subscription.get(timeout=30).data, client.call("own-" + service, "pid") == os.getpid())
subscription.stop()
handler.stop()
own.stop()
print(handled)
"""
    assert run_fork(code, loop, url, service).splitlines() == [
        "['to', 'the', 'parent', 'process']",
        "['to', 'the', 'parent', 'process']",
        "True",
        "from the child True",
        "['from the child']",
    ]


def test_a_child_of_a_child_works_too(loop: str, url: str, service: str) -> None:
    code = """
def descend(depth):
    assert call(f"depth {depth}") == f"depth {depth}"
    if depth == 3:
        return 0
    pid = os.fork()
    if pid == 0:
        os._exit(descend(depth + 1))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(descend(0), call("parent"))
"""
    assert run_fork(code, loop, url, service) == "0 parent\n"


def test_a_fork_inside_a_handler_works(loop: str, url: str, service: str) -> None:
    code = """
done = threading.Event()
def handler(data):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if call("child") == "child" else 1)
    print(os.waitpid(pid, 0)[1], call("handler"), flush=True)
    done.set()
client.subscribe(service + ".fork", handler)
client.publish(service + ".fork", 1)
assert done.wait(60)
print(call("parent"))
"""
    assert run_fork(code, loop, url, service) == "0 handler\nparent\n"


def test_a_client_made_but_closed_before_the_fork_stays_closed(loop: str, url: str, service: str) -> None:
    code = """
client.close()
pid = os.fork()
if pid == 0:
    try:
        call("child")
    except lightlink.ClosedError as exc:
        print(exc, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run_fork(code, loop, url, service) == "the client is closed\n"


def test_a_child_that_cannot_connect_says_so(loop: str, fresh_server: StartServer) -> None:
    server = fresh_server()
    code = """
import os, sys, time
import lightlink
client = lightlink.connect(sys.argv[1])
pid = os.fork()
if pid == 0:
    input()
    try:
        client.flush()
    except lightlink.ConnectError as exc:
        print(type(exc).__name__, flush=True)
    os._exit(0)
print("forked", flush=True)
os.waitpid(pid, 0)
while client.status is lightlink.Status.CONNECTED:
    time.sleep(0.01)  # it hears of it in a moment
print(client.status.value)
"""
    from helpers.process import PythonProcess

    with PythonProcess(loop + code, server.url, options=FORK_OPTIONS) as process:
        process.wait_line("forked")
        server.kill()
        process.send_line()
        result = process.wait()
    assert result.returncode == 0
    assert result.stdout.splitlines()[1:] == ["ConnectError", "reconnecting"]


# Notebooks ------------------------------------------------------------------------------------------------------------


class Notebook:
    """A kernel of IPython, and what a notebook does with it."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=40)

    def run(self, code: str, timeout: float = 60.0) -> str:
        """Run a cell; returns what it prints, or the name of the exception it ends with."""
        shown: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.append(content["text"])
            if message["msg_type"] == "error":
                shown.append(content["ename"])

        # For a moment after an interrupt a kernel refuses cells, which may have been queued behind it.
        while True:
            reply = self.client.execute_interactive(code, timeout=timeout, output_hook=note)
            if reply["content"]["status"] != "aborted":
                return "".join(shown)

    def interrupt(self, cell: str) -> str:
        """Interrupt a cell that runs, by its id; returns the name of the exception it ends with.

        As a person would, once more when nothing has come of it: Python drops an interrupt that meets a destructor.
        """
        for _ in range(4):
            self.manager.interrupt_kernel()
            with suppress(queue.Empty):
                while (reply := self.client.get_shell_msg(timeout=15))["parent_header"].get("msg_id") != cell:
                    pass
                name: str = reply["content"]["ename"]
                return name
        raise AssertionError("the cell was not interrupted")

    def stop(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    kernel = Notebook(tmp_path)
    yield kernel
    kernel.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cell_that_is_run_again_replaces_what_it_had_made(notebook: Notebook, url: str, prefix: str) -> None:
    notebook.run(f"import lightlink; client = lightlink.connect({url!r}); got = []")
    cell = f"""
@client.on({prefix!r} + ".said")
def note(data):
    got.append(({{version}}, data))
"""
    assert notebook.run(cell.format(version=1)) == ""
    assert "the handler note of" in notebook.run(cell.format(version=2))
    assert notebook.run("len(client.subscriptions), note.subscription in client.subscriptions") == ""
    served = f"""
service = lightlink.Service({prefix!r}, {url!r})

@service.rpc
def version():
    return {{version}}

service.start()
"""
    assert notebook.run(served.format(version=1)) == ""
    assert f"the service {prefix} is replaced" in notebook.run(served.format(version=2))
    with lightlink.connect(url) as other:
        assert [other.call(prefix, "version") for _ in range(10)] == [2] * 10
        other.publish(f"{prefix}.said", "hello")
        other.flush()
    waiting = "import time\nwhile not got: time.sleep(0.01)\nprint(got)"
    assert notebook.run(waiting) == "[(2, 'hello')]\n"
    shown = notebook.run(
        "try:\n    client.call('nobody', 'x')\nexcept Exception as exc:\n    print(exc._render_traceback_())"
    )
    assert "nobody.x is unavailable" in shown
    assert "caller.py" not in shown


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_notebook_everything_works_and_the_kernel_ends(
    notebook: Notebook, url: str, prefix: str, service: str
) -> None:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with lightlink.connect(url) as other:
        other.subscribe(f"{prefix}.said", heard.put)
        notebook.run(f"import lightlink; client = lightlink.connect({url!r})")
        assert notebook.run(f"print(client.call({service!r}, 'echo', {{'a': 1}}))") == "{'a': 1}\n"
        notebook.run(f"proxy = client.service({service!r})")
        assert notebook.run("proxy") == "", "showing a proxy calls nobody"
        notebook.run(f"subscription = client.subscribe('{prefix}.never')")
        cell = notebook.client.execute(f"client.publish('{prefix}.said', 'waiting'); subscription.get()")
        assert heard.get(timeout=30) == "waiting"
        assert notebook.interrupt(cell) == "KeyboardInterrupt"
        assert (
            notebook.run(f"client.publish('{prefix}.said', 'still here'); print(client.status.value)") == "connected\n"
        )
        assert heard.get(timeout=30) == "still here"
        notebook.run(f"for n in range(100): client.publish('{prefix}.said', n)")
        notebook.client.shutdown()
        began = time.monotonic()
        eventually(lambda: not notebook.manager.is_alive(), timeout=30)
        assert time.monotonic() - began < SOON
        assert [heard.get(timeout=30) for _ in range(100)] == list(range(100))
