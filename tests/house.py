"""Print the figures of docs/decisions/0025: ``python tests/house.py [folder of a clone [revision of its titles]]``."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

PACKAGE = "lightlink"
LARGEST_FOLDER = 17
LONGEST_NAME = 60


def figures(root: Path, revision: str = "HEAD") -> dict[str, str]:
    """Return what is counted, by what it is called."""
    package = root / PACKAGE
    trees = {path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    lines = {path: len(path.read_text().splitlines()) for path in trees}
    bodies = sorted(_bodies(trees.values()))
    imports = {path: sum(isinstance(node, _IMPORT) for node in ast.walk(tree)) for path, tree in trees.items()}
    most = max(imports.values())
    folders = {folder: sum(path.parent == folder for path in trees) - 1 for folder in {path.parent for path in trees}}
    crowded = [f"{folder.relative_to(root)} {size}" for folder, size in folders.items() if size > LARGEST_FOLDER]
    tests = {
        name for path in (root / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", _read(path))
    }
    long_names = sum(len(name) > LONGEST_NAME for name in tests)
    titles = sorted(len(title) for title in _run(root, "git", "log", "-200", "--format=%s", revision))
    largest = [f"{size} {path.relative_to(package)}" for path, size in sorted(lines.items(), key=_size)[-3:]]
    return {
        "modules": str(len(trees)),
        "lines of a module, median": f"{statistics.median(lines.values()):g}",
        "largest modules": ", ".join(reversed(largest)),
        "body of a function, median / longest": f"{statistics.median(bodies):g} / {bodies[-1]}",
        "modules in circles of imports": str(len(_in_circles(trees, package))),
        "private names of another object touched": str(_private_touches(root)),
        "folders of more than 17 modules": ", ".join(crowded) or "0",
        "import statements of a module, median / most": f"{statistics.median(imports.values()):g} / {most}",
        "sums of monotonic time by hand": str(_count(trees, r"monotonic\(\) *[+-]|[+-] *(time\.)?monotonic\(\)")),
        "modules that install signal handlers": str(_modules_with(trees, r"\bsignal\.signal\(")),
        "names of tests of more than 60 characters": f"{long_names} of {len(tests)}",
        "titles of commits (the last 200), median / longest": f"{statistics.median(titles):g} / {titles[-1]}",
    }


_IMPORT = (ast.Import, ast.ImportFrom)
_TEST = re.compile(r"def (test_\w+)")


def _read(path: Path) -> str:
    return path.read_text()


def _size(item: tuple[Path, int]) -> int:
    return item[1]


def _run(root: Path, *command: str) -> list[str]:
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()


def _bodies(trees: object) -> list[int]:
    """Return the lines of each function without its signature and its docstring."""
    found = []
    for tree in trees:  # type: ignore[attr-defined]
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1:] if ast.get_docstring(node) is not None else node.body
                found.append((node.end_lineno or 0) - first[0].lineno + 1 if first else 0)
    return found


def _in_circles(trees: dict[Path, ast.Module], package: Path) -> set[str]:
    """Return the modules that lead back to themselves, annotations' and functions' own imports included."""
    names = {_module(path, package): tree for path, tree in trees.items()}
    left = {name: _imports_of(tree, names) - {name} for name, tree in names.items()}
    while free := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in free}
    while free := {name for name in left if not any(name in imports for imports in left.values())}:
        left = {name: imports for name, imports in left.items() if name not in free}
    return set(left)


def _module(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _imports_of(tree: ast.Module, names: dict[str, ast.Module]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in names else node.module for name in full}
    return found & names.keys()


def _private_touches(root: Path) -> int:
    command = ("check", "--isolated", "--select", "SLF001", "--ignore-noqa", "--output-format", "concise", PACKAGE)
    return sum("SLF001" in line for line in _run(root, sys.executable, "-m", "ruff", *command))


def _count(trees: dict[Path, ast.Module], pattern: str) -> int:
    return sum(len(re.findall(pattern, _read(path))) for path in trees)


def _modules_with(trees: dict[Path, ast.Module], pattern: str) -> int:
    return sum(re.search(pattern, _read(path)) is not None for path in trees)


if __name__ == "__main__":
    for what, value in figures(Path(sys.argv[1] if len(sys.argv) > 1 else "."), *sys.argv[2:3]).items():
        sys.stdout.write(f"{what}: {value}\n")
