"""The house: imports in no circle, and folders that can be looked over."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import lightlink

ROOT = Path(lightlink.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
LARGEST_FOLDER = 18  # 17 modules and the package
LONGEST_NAME = 60


def imports_of(path: Path) -> set[str]:
    """Return the modules of ours that a module imports, annotations' and functions' own imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & MODULES.keys()


def test_no_module_leads_back_to_itself() -> None:
    left = {name: imports_of(path) for name, path in MODULES.items()}
    while free := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in free}
    assert left == {}, "these are in a circle, or import one that is"


def test_folders_can_be_looked_over() -> None:
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in {path.parent for path in MODULES.values()}}
    assert {str(folder): size for folder, size in sizes.items() if size > LARGEST_FOLDER} == {}


def test_a_test_s_name_is_a_behaviour_in_few_words() -> None:
    tests = Path(__file__).parent
    names = {name for path in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert {name for name in names if len(name) > LONGEST_NAME} == set()
