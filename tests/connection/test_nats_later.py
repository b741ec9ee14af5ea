"""nats-py's JetStream is not imported before somebody wants it, and then it is as if it had always been there."""

from __future__ import annotations

import pytest
from helpers.process import run_python

# What a program may do that uses nats-py itself, too.
USES = {
    "attribute": "import nats; assert issubclass(nats.js.errors.NotFoundError, nats.js.errors.APIError)",
    "from": "from nats.js import JetStreamContext, api; assert JetStreamContext.__init__ and api.StreamConfig",
    "submodule": "import nats.js.api as api; from nats.js import JetStreamContext, kv; assert kv.api is api",
    "client": "import nats; assert isinstance(nats.NATS().jetstream(), nats.js.JetStreamContext)",
    "kept": "import nats; js = nats.js; nats.js.api; assert js.api is nats.js.api",
    "missing": "import nats; assert not hasattr(nats.js, 'nothing')",
    "threads": """
import threading, nats
found = []
threads = [threading.Thread(target=lambda: found.append(nats.js.JetStreamContext)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [nats.js.JetStreamContext] * 8
""",
}


@pytest.mark.parametrize("use", USES)
def test_a_program_finds_it_wherever_it_looks(use: str) -> None:
    finished = run_python(
        f"""
import sys
import lightlink; lightlink.connect
assert not any(name.startswith("nats.js.") for name in sys.modules)
{USES[use]}
import nats
assert nats.js.api.Header and type(nats.js) is type(sys) and nats.js is sys.modules["nats.js"]
assert nats.js.client.api is nats.js.api is sys.modules["nats.js.api"]
""",
        options=("-W", "error"),
    )
    assert finished.returncode == 0, finished.stderr


def test_what_was_imported_before_is_left_alone() -> None:
    finished = run_python("import nats; js = nats.js; import lightlink; lightlink.connect; assert nats.js is js")
    assert finished.returncode == 0, finished.stderr


def test_what_the_library_does_needs_none_of_it(url: str, prefix: str) -> None:
    finished = run_python(
        """
        import io, sys
        import lightlink

        url, name = sys.argv[1:]
        service = lightlink.Service(name, url)
        service.register("echo", lambda x: x)
        with service, lightlink.connect(url) as client:
            assert client.call(name, "echo", {"x": 1}, headers={"a": "b"}) == 1
            with client.subscribe(name) as events:
                client.publish(name, 1, headers={"a": "b"})
                assert events.get(timeout=30).data == 1
            client.set_state(name, 1)
            assert client.get_state(name) == 1
            client.download(client.upload(io.BytesIO(bytes(1000))).id, io.BytesIO())
        assert "nats.js.api" not in sys.modules
        """,
        url,
        prefix,
    )
    assert finished.returncode == 0, finished.stderr
