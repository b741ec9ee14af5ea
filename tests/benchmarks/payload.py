"""The same payload for everybody: about 64 bytes of JSON."""

from __future__ import annotations

import json

VALUE = {"device": "sensor-0042", "temperature": 21.5, "unit": "C", "n": 12345}
ENCODED = json.dumps(VALUE, separators=(",", ":")).encode()
# What tells a good reply from an error in the bytes that come back.
MARK = b'"sensor-0042"'
