"""``python -m lightlink.cli``: the command where no script is installed."""

from __future__ import annotations

import sys

from lightlink.cli import main

sys.exit(main())
