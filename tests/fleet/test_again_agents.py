"""On a fleet, with the tests of a certificate directory: what a plain agent may try."""

from __future__ import annotations

import commands.test_agent_permissions
from helpers.again import take

take(commands.test_agent_permissions, globals())
