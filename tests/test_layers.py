"""Modules form a line, the order of the data; each imports only from those to its left."""

import ast
import re

import avnb
from tests.conftest import ROOT

ORDER = re.findall(r"\w+", avnb.__doc__.split("left:")[1])


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "avnb":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avnb."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("avnb."))


def test_the_line_names_every_module():
    assert sorted(ORDER) == sorted(
        p.stem for p in (ROOT / "avnb").glob("*.py") if p.stem != "__init__"
    )


def test_every_arrow_points_one_way():
    for i, name in enumerate(ORDER):
        wrong = set(imports(ROOT / "avnb" / f"{name}.py")) - set(ORDER[:i])
        assert not wrong, f"{name} imports {wrong}, which stand to its right"
