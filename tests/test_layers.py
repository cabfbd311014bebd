"""Packages form a column, and modules within each as well: imports point upwards only."""

import ast
import re
from pathlib import Path

import pytest

import avnb
from tests.conftest import ROOT

PACKAGES = re.findall(r"^(\w+)  ", avnb.__doc__, re.MULTILINE)[1:]
LINES = re.search(r"^foundations +(.*\n(?: +.*\n)*)", avnb.__doc__, re.MULTILINE)[1]
FOUNDATIONS = re.findall(r"\w+", LINES)


def listed(package: str) -> list[str]:
    """The modules that a package's docstring names, in its order."""
    doc = ast.get_docstring(ast.parse((ROOT / "avnb" / package / "__init__.py").read_text()))
    return re.findall(r"^(\w+)  ", doc, re.MULTILINE)


ORDER = {
    "": FOUNDATIONS, **{package: listed(package) for package in PACKAGES},
    "data/synthetic": listed("data/synthetic"),
}  # fmt: skip


def modules(package: str) -> list[Path]:
    folder = ROOT / "avnb" / package
    return [p for p in folder.iterdir() if p.suffix == ".py" and p.stem[:2] != "__"]


def imported(path: Path) -> set[tuple[str, str]]:
    """(package, module) of everything of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avnb")):
            continue
        for alias in node.names:
            parts = [*node.module.split(".")[1:], alias.name]
            while not (ROOT / "avnb" / Path(*parts)).with_suffix(".py").exists() and parts[1:]:
                if (ROOT / "avnb" / Path(*parts) / "__init__.py").exists():
                    break
                parts.pop()
            found.add(("/".join(parts[:-1]), parts[-1]))
    return found


@pytest.mark.parametrize("package", ORDER)
def test_the_docstring_names_every_module(package):
    folders = [p.name for p in (ROOT / "avnb" / package).iterdir() if (p / "__init__.py").exists()]
    there = [p.stem for p in modules(package)] + (folders if package else [])
    assert sorted(ORDER[package]) == sorted(there)


@pytest.mark.parametrize("package", ORDER)
def test_every_import_points_upwards(package):
    top = package.partition("/")[0]
    above = ["", *PACKAGES[: PACKAGES.index(top)]] if top else []
    for path in modules(package):
        for home, module in imported(path):
            if home == package:
                order = ORDER[package]
                assert order.index(module) < order.index(path.stem), f"{path} imports {module}"
            elif top and home.partition("/")[0] == top:  # data/synthetic counts as synthetic
                outer, inner = (
                    package.partition("/")[2] or path.stem,
                    home.partition("/")[2] or module,
                )
                assert ORDER[top].index(inner) < ORDER[top].index(outer), f"{path}: {module}"
            else:
                assert home.partition("/")[0] in above, f"{path} imports {home}.{module}"
