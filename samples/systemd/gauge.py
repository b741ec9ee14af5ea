"""A service under systemd, which reads its settings anew when it is asked to.

python samples/systemd/gauge.py
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import lightlink
from lightlink.contrib import systemd

SETTINGS = Path(__file__).with_name("gauge.json")

service = lightlink.Service("gauge", version="1.0.0")
settings: dict[str, str] = {}


@service.rpc
def unit() -> str:
    """Tell what is measured in."""
    return settings["unit"]


def read_settings() -> None:
    """Read the settings; one that cannot be read leaves them as they were, and is logged."""
    settings.update(json.loads(SETTINGS.read_text()))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    read_settings()
    # Waits for a server that is not there yet, serves, tells systemd how it is, and drains at SIGTERM.
    systemd.run(service, on_reload=read_settings)
