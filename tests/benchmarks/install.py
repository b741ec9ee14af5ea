"""Install the extra ``bench``; when that fails as a whole, each of its packages that can be installed.

A peer that is missing after that is named in the table, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]


def main() -> None:
    """Run pip; without effect on what is there already."""
    if subprocess.run([*_PIP, "--editable", ".[bench]"], check=False).returncode == 0:
        return
    for requirement in requires("lightlink") or []:
        name, _, condition = requirement.partition(";")
        if "bench" in condition and subprocess.run([*_PIP, name.strip()], check=False).returncode:
            sys.stderr.write(f"bench: {name.strip()} cannot be installed here\n")


if __name__ == "__main__":
    main()
