"""Values with names, ranges and an identity."""

import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

LIKE_THIS = """write names and values like this: '{"precision": "bf16", "lr": 0.001}'"""


def check_range(owner: object, low: float, high: float, *names: str) -> None:
    """Raise ValueError unless every named value of `owner` lies in [low, high]."""
    for name in names:
        value = getattr(owner, name)
        if not low <= value <= high:
            kind = type(owner).__name__
            raise ValueError(f"{kind}.{name} must lie in [{low}, {high}], got {value!r}")


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a misspelt name: what was found, the nearest allowed one, all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} {name!r} is unknown{hint}\n  known: {', '.join(names)}"


def parse_values(text: str) -> dict[str, Any]:
    """`'{"precision": "bf16"}'` -> {"precision": "bf16"}; ValueError when it is not such JSON."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"values = {text!r} is not JSON ({error}); {LIKE_THIS}") from error
    if not isinstance(found, dict):
        raise ValueError(f"values = {text!r} gives no names; {LIKE_THIS}")
    return found


# Values that fit a run to a machine: as with the number of processes, a run that has begun goes on
# with others. `micro_batch` and the processes divide a batch alike: 2 x 4 x 16 clips as 8 x 16.
NON_IDENTITY_FIELDS = frozenset({"micro_batch", "save_every_steps", "window_steps"})


class Flat:
    """Values that can be set by their own name, whichever group they stand in."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """Each settable name and the group it belongs to ('' for the run's own)."""
        found: dict[str, str] = {}
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            inner = dataclasses.fields(f.type) if dataclasses.is_dataclass(f.type) else ()
            for name, group in [(g.name, f.name) for g in inner] or [(f.name, "")]:
                if name in found:
                    raise TypeError(f"{cls.__name__} has two values named {name!r}")
                found[name] = group
        return found

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """Build from flat names: `Pretrain.from_flat(method="xid", lr=1e-3)`.

        Raises:
            TypeError: for a name that does not exist (with the nearest one) or a wrong type.
            ValueError: for a value out of its range.
        """
        groups = cls.names()
        own: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in groups:
                raise TypeError(unknown_name(f"{cls.__name__} parameter", name, groups))
            target = nested.setdefault(groups[name], {}) if groups[name] else own
            target[name] = value
        types = typing.get_type_hints(cls)
        # A group's values may differ here from those that it has by itself.
        usual: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for group, inner in nested.items():
            own[group] = dataclasses.replace(usual[group](), **checked(types[group], inner))
        return cls(**checked(cls, own))

    def flat(self) -> dict[str, Any]:
        """All values under their flat names."""
        nested = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {n: nested[g][n] if g else nested[n] for n, g in self.names().items()}


def checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, an int made a float where a float is meant; TypeError for any other mismatch."""
    types, good = typing.get_type_hints(kind), {}
    for name, value in values.items():
        want = types[name]
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if typing.get_origin(want) is Literal:
            if value not in typing.get_args(want):
                raise ValueError(unknown_name(name, str(value), map(str, typing.get_args(want))))
        elif not dataclasses.is_dataclass(want) and type(value) is not want:
            found = f"{value!r} ({type(value).__name__})"
            raise TypeError(f"{kind.__name__}.{name} must be {want.__name__}, got {found}")
        good[name] = value
    return good


def identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a run without the values of FREE, in whichever group they stand."""
    return {
        name: identity(value) if isinstance(value, Mapping) else value
        for name, value in metadata.items()
        if name not in NON_IDENTITY_FIELDS
    }


def digest(values: Any) -> str:
    """Eight hexadecimal figures that stand for any JSON-like value."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
