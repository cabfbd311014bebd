"""Parameters of a notebook: typed literals in one tagged cell; a misspelt one is an error.

papermill itself only warns about an unknown name and runs with the defaults. `avnb run` checks
before it starts; `check`, called in a notebook's first cell, catches the same mistake under plain
papermill. This module imports little, so that the mistake is reported at once.
"""

import ast
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avnb.config import unknown_name

TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
Declared = Mapping[str, type]


def declared_parameters(source: str) -> dict[str, type]:
    """Name -> type from a parameters cell, `name: type = literal` per line."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): TYPES[ast.unparse(node.annotation)] for node in nodes}


def notebook_parameters(path: Path | str) -> dict[str, type]:
    """`declared_parameters` of the notebook at `path`; none when no cell carries the tag.

    Raises:
        FileNotFoundError: when there is no such file; it names the notebooks beside it.
        ValueError: when the file is not a notebook.
    """
    path = Path(path)
    if not path.is_file():
        names = ", ".join(sorted(p.name for p in path.parent.glob("*.ipynb"))) or "no notebook"
        raise FileNotFoundError(f"{path} does not exist; {path.parent} holds {names}")
    try:
        cells = json.loads(path.read_text())["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook of format 4: {error!r}") from error
    sources = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", ())]
    return declared_parameters(sources[0]) if sources else {}


def injected_parameters(source: str) -> dict[str, Any]:
    """Name -> value from the cell of plain assignments that papermill injects."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in nodes}


def check_parameters(declared: Declared, given: Mapping[str, Any]) -> None:
    """Raise TypeError for a name that is not declared, or a value of another type."""
    for name, value in given.items():
        if name not in declared:
            raise TypeError(unknown_name("notebook parameter", name, declared))
        if type(value) is not declared[name] and (declared[name], type(value)) != (float, int):
            kind = declared[name].__name__
            raise TypeError(f"notebook parameter {name!r} must be {kind}, got {value!r}")


def parse_value(name: str, text: str, declared: Declared) -> Any:
    """The text of a parameter as the type that the notebook declares, or else as it is."""
    kind = declared.get(name, str)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        return text  # which `check_parameters` refuses


def check() -> None:
    """In a notebook: check what papermill injected against what the notebook declares."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    cells = [c for c in shell.user_ns.get("In", []) if c.strip()] if shell else []
    for before, cell in itertools.pairwise(cells):
        if cell.startswith("# Parameters\n"):
            check_parameters(declared_parameters(before), injected_parameters(cell))
