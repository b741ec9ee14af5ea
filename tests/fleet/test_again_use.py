"""On a fleet, with the tests of a certificate directory: roles through LightLink itself."""

from __future__ import annotations

import pytest
import tls.test_permissions
from helpers.again import take

pytestmark = pytest.mark.slow

take(tls.test_permissions, globals())
