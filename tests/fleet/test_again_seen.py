"""On a fleet, with the tests of a certificate directory: the attacks that were seen in use."""

from __future__ import annotations

import pytest
import tls.test_attacks
from helpers.again import take

pytestmark = pytest.mark.slow

take(tls.test_attacks, globals())
