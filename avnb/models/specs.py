"""Code of the user's own, named as `package.module:name` or `file.py:name`."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def is_spec(text: str) -> bool:
    """Whether a text names code of the user's own (a path without `.py:` in it does not)."""
    module, _, name = text.rpartition(":")
    return name.isidentifier() and (
        module.endswith(".py") or all(part.isidentifier() for part in module.split("."))
    )


def resolved_spec(text: str) -> str:
    """The same name with the path of its file made absolute; other names as they are."""
    module, _, name = text.rpartition(":")
    if not (is_spec(text) and module.endswith(".py")):
        return text
    return f"{Path(module).expanduser().resolve()}:{name}"


def load_spec(text: str) -> Any:
    """What the text names; its module is imported, so give only code that you trust.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when there is no such module, or nothing of this name in it.
    """
    source, _, name = text.rpartition(":")
    module = module_of_file(Path(source)) if source.endswith(".py") else import_module(text, source)
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")][:12]
        raise ImportError(f"{text!r}: {source} defines no {name!r}; it has {', '.join(names)}")
    return getattr(module, name)


def import_module(text: str, source: str) -> Any:
    """The installed module `source`; ImportError that says what was asked for."""
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{text!r}: {error}; is the package installed, or should this be a file.py:name?"
        ) from error


def module_of_file(path: Path) -> Any:
    """The module in a file, executed once in a process; FileNotFoundError without the file."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it was to define code of your own")
    name = f"avnb_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]  # a later attempt imports it anew
            raise
    return sys.modules[name]


def source_digest(text: str) -> str:
    """A hash of a user's own file, so that other code is another run; '' for anything else."""
    source, _, _ = text.rpartition(":")
    if not (is_spec(text) and source.endswith(".py")):
        return ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
