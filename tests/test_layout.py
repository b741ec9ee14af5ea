"""The house: imports in no circle, and folders that can be looked over."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import lightlink
from lightlink.protocol import subjects

ROOT = Path(lightlink.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
LARGEST_FOLDER = 18  # 17 modules and the package
LONGEST_NAME = 60
# Subjects and streams of LightLink's own, and what NATS has below `$KV`, `$O`, `$SRV` and `$LL`. Environment variables,
# metrics and tables begin with LIGHTLINK_ and lightlink_ too: of those it is the names in use that count.
OWN_NAME = re.compile(r"(ll\.|\$KV\.|\$O\.|\$SRV\.|\$LL\.|KV_|OBJ_)\S*")
OWN_NAMES = {value for name, value in vars(subjects).items() if name.isupper() and isinstance(value, str)}
# The table of roles and the judges of peers say them again, to be compared.
MAY_NAME = ("lightlink.protocol.", "lightlink.conformance.")


@functools.cache
def look_at(path: Path) -> tuple[set[str], set[str]]:
    """Return what a module imports, annotations' and functions' own imports included, and its texts but docstrings."""
    imported, texts, said = set(), {}, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Expr):
            said.add(id(node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts[id(node)] = node.value
    return imported, {text for key, text in texts.items() if key not in said}


def imports_of(path: Path) -> set[str]:
    """Return the modules of ours that a module imports."""
    return look_at(path)[0] & MODULES.keys()


def names_in(path: Path) -> set[str]:
    """Return the names on the wire that a module spells out, but for those in its docstrings."""
    return {text for text in look_at(path)[1] if OWN_NAME.fullmatch(text) or text in OWN_NAMES}


def test_names_on_the_wire_are_spelled_in_one_place() -> None:
    others = {name: path for name, path in MODULES.items() if not name.startswith(MAY_NAME)}
    assert {name: found for name, path in others.items() if (found := names_in(path))} == {}


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
