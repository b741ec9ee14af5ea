"""The curl session, with all that it needs: a nats-server, the HTTP API, two agents.

python samples/http_commands/everything.py [URL]
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from agent import make_agent

import lightlink

HERE = Path(__file__).parent


def main() -> int:
    """Start everything, run session.sh, stop everything."""
    with contextlib.ExitStack() as stack:
        url = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(lightlink.EmbeddedServer()).url
        for client_id in ("greenhouse", "cellar"):
            stack.enter_context(make_agent(client_id, url, site="berlin"))

        # The same as `lightlink http` in a shell; it prints where it listens once it does.
        command = [sys.executable, "-m", "lightlink.cli", "http", "--listen=127.0.0.1:0", "--json", f"--url={url}"]
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stdout is not None
        api = json.loads(server.stdout.readline())["url"]

        return subprocess.run(["/bin/sh", HERE / "session.sh", api], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
