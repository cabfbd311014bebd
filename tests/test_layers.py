"""Packages form a column, and modules within each as well: imports point to what is listed above.

The docstring of a package lists its modules, `| name: what it holds`, in their order.
"""

import ast
import re
from pathlib import Path

from tests.conftest import ROOT


def column(folder: Path) -> list[str]:
    """All modules below a package in their order, by dotted name; a package follows its modules."""
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    names, dotted = [], ".".join(folder.relative_to(ROOT).parts)
    for name in re.findall(r"^\| (\w+):", doc, re.MULTILINE):
        names += column(folder / name) if (folder / name).is_dir() else [f"{dotted}.{name}"]
    return [*names, dotted]


FILES = [path for path in (ROOT / "avnb").rglob("*.py") if path.name != "__main__.py"]
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
ORDER = column(ROOT / "avnb")


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avnb"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("avnb.")}
    return found


def test_docstrings_name_every_module_once():
    assert sorted(ORDER) == sorted(MODULES)


def test_every_import_points_upwards():
    places = {name: place for place, name in enumerate(ORDER)}
    upside_down = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported(path)
        if places[other] >= places[name]
    ]
    assert upside_down == []
