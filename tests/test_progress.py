"""Progress as it is shown: by tqdm where it is installed, by lines of text where it is not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python

import lightlink
from lightlink import progress
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.commands import World

WITHOUT_TQDM = """
    import sys
    sys.modules["tqdm"] = None  # as if it were not installed
"""


def test_an_upload_and_a_download_show_bars(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lightlink.connect(url) as client:
        info = client.upload(io.BytesIO(b"x" * 500_000), name="noise.bin", progress=True)
        shown = capsys.readouterr().err
        assert "the upload of 'noise.bin': 100%" in shown
        assert "488k/488k" in shown.replace(".00", "")
        copy = io.BytesIO()
        client.download(info.id, copy, progress=True)
        assert "100%" in capsys.readouterr().err
        assert client.upload(io.BytesIO(b"x"), progress=False).size == 1
        assert capsys.readouterr().err == ""
        with pytest.raises(InvalidOption, match="progress"):
            client.upload(io.BytesIO(b"x"), progress=1)  # type: ignore[arg-type]


def test_without_tqdm_lines_tell_of_an_upload(url: str, tmp_path: Path) -> None:
    done = run_python(
        WITHOUT_TQDM
        + """
    import io, lightlink
    with lightlink.connect(sys.argv[1]) as client:
        client.upload(io.BytesIO(b"x" * 500_000), name="noise.bin", progress=True)
        """,
        url,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "the upload of 'noise.bin': 100%\n"


def test_waits_for_commands_show_bars(world: World, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    manager = world.manager()
    agent = world.agent(prefix)

    @agent.command("count", idempotent=True)
    def count(context: lightlink.CommandContext, to: int) -> int:
        context.progress(0.5, "half way")
        return to

    agent.start()
    assert manager.send(prefix, "count", {"to": 3}).result(30, progress=True) == 3
    assert f"count on {prefix}: 100%" in capsys.readouterr().err
    batch = manager.send_many([prefix], "count", {"to": 3}, repeat=5)
    assert batch.wait(30, progress=True)
    shown = capsys.readouterr().err
    assert f"batch {batch.batch_id}: 100%" in shown
    assert "5 completed" in shown


def test_a_wait_that_runs_out_leaves_its_bar_where_it_was(
    world: World, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = world.manager().send_many([prefix], "count", {})  # nobody is there
    assert not batch.wait(0.2, progress=True)
    assert "0/1" in capsys.readouterr().err


@pytest.mark.parametrize(("total", "said"), [(200.0, "job: 25% begun"), (None, "job: 50 B begun")])
def test_lines_say_how_much_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: Any, said: str
) -> None:
    monkeypatch.setattr(progress, "_tqdm", lambda: None)
    with progress.ProgressBar("job", total, "B") as bar:
        bar.show(50, total, "begun")
    assert capsys.readouterr().err == f"{said}\n"
