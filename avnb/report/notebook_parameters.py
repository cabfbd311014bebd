"""Parameters of a notebook: typed literals in one tagged cell; a misspelt one is an error.

papermill itself only warns about an unknown name and runs with the defaults. `run` (in
`avnb.book`) checks before it starts; `check`, called in a notebook's first cell, catches the
same mistake under plain papermill.
"""

import ast
import itertools
from collections.abc import Mapping
from typing import Any

from avnb.values import unknown_name

KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def declared(source: str) -> dict[str, tuple[str, Any]]:
    """Name -> (type name, default) of a parameters cell, `name: type = literal` a line.

    Raises:
        ValueError: for a line of another form.
    """
    found = {}
    for node in ast.parse(source).body:
        kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        if not isinstance(node, ast.AnnAssign) or node.value is None or kind not in KINDS:
            line = ast.unparse(node)
            raise ValueError(f"{line!r}: write `name: type = literal`, type one of {list(KINDS)}")
        found[ast.unparse(node.target)] = (kind, ast.literal_eval(node.value))
    return found


def check_values(known: Mapping[str, tuple[str, Any]], given: Mapping[str, Any]) -> None:
    """Raise TypeError for a name that is not declared, or a value of another type."""
    for name, value in given.items():
        if name not in known:
            raise TypeError(unknown_name("notebook parameter", name, known))
        kind = KINDS[known[name][0]]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            what = f"{value!r} ({type(value).__name__})"
            raise TypeError(f"notebook parameter {name!r} must be {kind.__name__}, got {what}")


def injected(source: str) -> dict[str, Any]:
    """Name -> value of the cell that papermill injects, plain assignments of literals."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    return found


def check() -> None:
    """In a notebook: check what papermill injected against what the notebook declares."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    cells = [c for c in shell.user_ns.get("In", []) if c.strip()] if shell else []
    for before, cell in itertools.pairwise(cells):
        if cell.startswith(("# Parameters\n", "# Parameters\r")):
            check_values(declared(before), injected(cell))
