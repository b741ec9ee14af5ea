"""The sample notebooks, executed by nbconvert, and a kernel that a person interrupts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.docs import blocks, run
from helpers.process import run_python
from jupyter_client.manager import start_new_kernel

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client import BlockingKernelClient, KernelManager

NOTEBOOKS = Path(__file__).resolve().parents[1] / "samples" / "notebooks"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:UserWarning")


def execute(name: str, folder: Path, **env: str) -> str:
    """Return what an executed notebook shows, all outputs together."""
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", f"--output-dir={folder}"]
    run([*command, str(NOTEBOOKS / name)], folder, IPYTHONDIR=str(folder), **env)
    cells = json.loads((folder / name).read_text())["cells"]
    return json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])


def test_the_sample_of_first_steps_runs(tmp_path: Path, url: str) -> None:
    shown = execute("first_steps.ipynb", tmp_path, LIGHTLINK_URL=url)
    for words in ("<caption>Client client</caption>", "<caption>Service math</caption>", "10000", "ZeroDivisionError"):
        assert words in shown
    assert "<caption>noise.bin</caption>" in shown
    assert "3000000" in shown


@pytest.mark.slow
def test_the_sample_of_commands_runs(tmp_path: Path) -> None:
    """With a server of its own."""
    shown = execute("commands.ipynb", tmp_path)
    for words in (
        "'mean': 21.5",
        "2 completed, 1 failed",
        "the sensor does not answer",
        "<caption>Agent pump-0</caption>",
    ):
        assert words in shown


def test_the_page_s_blocks_run_one_after_the_other(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cells of a notebook, beside the service and the agent of the page."""
    monkeypatch.setenv("LIGHTLINK_URL", url)
    plant, *cells = blocks("how-to/notebooks.md", "python")
    found: dict[str, Any] = {}
    exec(compile(plant, "plant.py", "exec"), found)
    with found["service"], found["agent"]:
        said = run([sys.executable, "-W", "error", "-c", "".join(cells)], tmp_path, LIGHTLINK_URL=url)
    assert said == "[1, 2, 3]\n"


def test_the_samples_hold_no_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.fixture
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """Run a cell; returns its ``status``, ``ename`` and what it showed."""
    shown: list[Any] = []
    reply = client.execute_interactive(code, timeout=60, output_hook=lambda message: shown.append(message["content"]))
    return {**reply["content"], "shown": json.dumps(shown)}


def test_an_interrupt_ends_the_wait_and_nothing_else(
    kernel: tuple[KernelManager, BlockingKernelClient], url: str
) -> None:
    manager, client = kernel
    ready = run_cell(
        client,
        f"""
import threading, lightlink
client = lightlink.connect({url!r})
service = lightlink.Service("interrupted", client)
go_on, begun = threading.Event(), threading.Event()
service.register("slow", lambda: (begun.set(), go_on.wait(60)) and 1)
service.register("fast", lambda n: n)
service.start()
""",
    )
    assert ready["status"] == "ok", ready

    for wait in (
        "list(client.map('interrupted', 'slow', [{}], timeout=50))",
        "client.call('interrupted', 'slow', timeout=50)",
    ):
        interrupter = f"""
import os, signal, threading
def interrupt():
    begun.wait(60)
    os.kill(os.getpid(), signal.SIGINT)
begun.clear()
threading.Thread(target=interrupt).start()
{wait}
"""
        interrupted = run_cell(client, interrupter)
        assert (interrupted["status"], interrupted.get("ename")) == ("error", "KeyboardInterrupt"), interrupted
        after = run_cell(client, "print(list(client.map('interrupted', 'fast', [{'n': n} for n in range(3)])))")
        assert "[0, 1, 2]" in after["shown"], after
    assert manager.is_alive()


def test_an_error_shows_the_cell_and_not_the_library(
    kernel: tuple[KernelManager, BlockingKernelClient], url: str, prefix: str
) -> None:
    _, notebook = kernel
    ready = run_cell(notebook, f"import lightlink\nclient = lightlink.connect({url!r})")
    assert ready["status"] == "ok", ready

    failed = run_cell(notebook, f"def ask(item):\n    return client.call({prefix!r}, item)\n\nask('price')")

    shown = "\n".join(failed["traceback"])
    assert failed["ename"] == "ServiceUnavailable"
    assert "ask('price')" in shown
    assert f"client.call({prefix!r}, item)" in shown
    assert failed["evalue"] in shown
    assert str(Path(lightlink.__file__).parent) not in shown
    assert shown.count("\n") < 15


def test_a_module_that_is_edited_is_served_anew_by_autoreload(tmp_path: Path, url: str, prefix: str) -> None:
    done = run_python(
        """
        import os, sys
        from pathlib import Path
        from IPython.core.interactiveshell import InteractiveShell

        folder, url, name = sys.argv[1:]
        sys.path.insert(0, folder)
        os.environ["LIGHTLINK_URL"] = url
        module, shell = Path(folder, "edited.py"), InteractiveShell.instance()
        module.write_text("def price(item):\\n    return 1\\n")

        def cell(text):
            done = shell.run_cell(text)
            done.raise_error()
            return done.result

        cell("%load_ext autoreload\\n%autoreload 2\\nimport lightlink, edited")
        cell(f"service = lightlink.Service({name!r})\\nservice.register('price', edited.price)\\nservice.start()")
        cell("client = lightlink.connect()")
        ask = f"client.call({name!r}, 'price', {{'item': 'apple'}})"
        assert cell(ask) == 1
        module.write_text("def price(item):\\n    return 2\\n")
        os.utime(module, (2e9, 2e9))  # as if it were later
        assert cell(ask) == 2
        cell("service.stop()\\nclient.close()")
        """,
        tmp_path,
        url,
        prefix,
        env={"IPYTHONDIR": str(tmp_path)},
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )
    assert done.returncode == 0, done.stderr
