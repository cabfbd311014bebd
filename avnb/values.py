"""Values with names, types, ranges and an identity: what every configuration is made of."""

import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

VALUES_EXAMPLE = """write names and values like this: '{"precision": "bf16", "lr": 0.001}'"""

# Values that fit a run to a machine. As with the number of processes, a run that has started
# continues with others. `micro_batch` and the processes divide a batch alike: 2 x 4 x 16 clips as
# 8 x 16.
# `subset_ids` is a file; which videos it names is part of the data.
NON_IDENTITY_FIELDS = frozenset(
    {"micro_batch", "save_every_steps", "read_ahead_gb", "subset_ids", "tensorboard"}
)

# Values that did not exist when runs began, with what those did: they keep their ids.
LATER_FIELDS = {
    "shuffle_steps": 0,
    "audio_window": "around",
    "masks": "one",
    "framing": "centred",
    "views_per_forward": 2,
    "validation_ids": "",
    "max_damaged": 0.05,
    "residual_scale": 1.0,
    "projector_batch_norm": False,
}


def within(low: float, high: float, default: Any) -> Any:
    """A field with a default, whose value must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a misspelt name: what was found, the nearest allowed one, all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} {name!r} is unknown{hint}\n  known: {', '.join(names)}"


def parse_values(text: str) -> dict[str, Any]:
    """`'{"precision": "bf16"}'` -> {"precision": "bf16"}; ValueError when it is not such JSON."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"values = {text!r} is not JSON ({error}); {VALUES_EXAMPLE}") from error
    if not isinstance(values, dict):
        raise ValueError(f"values = {text!r} gives no names; {VALUES_EXAMPLE}")
    return values


@dataclass(frozen=True, kw_only=True)
class Group:
    """Values of one subject, each checked against the range that its field declares."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            low, high = f.metadata.get("range", (None, None))
            value = getattr(self, f.name)
            if low is not None and not low <= value <= high:
                kind = type(self).__name__
                raise ValueError(f"{kind}.{f.name} must lie in [{low}, {high}], got {value!r}")


class Config(Group):
    """Groups of values, each of which can be set by its own name, whichever group it belongs to."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """Each settable name and the group it belongs to ('' for the configuration itself)."""
        groups: dict[str, str] = {}
        for f in dataclasses.fields(cls):
            inner = dataclasses.fields(f.type) if dataclasses.is_dataclass(f.type) else ()
            for name, group in [(g.name, f.name) for g in inner] or [(f.name, "")]:
                if name in groups:
                    raise TypeError(f"{cls.__name__} has two values named {name!r}")
                groups[name] = group
        return groups

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
        # A group's defaults here may differ from those that it has by itself.
        defaults: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        for group, inner in nested.items():
            own[group] = dataclasses.replace(defaults[group](), **typed(types[group], inner))
        return cls(**typed(cls, own))

    def flat(self) -> dict[str, Any]:
        """All values under their flat names."""
        nested = dataclasses.asdict(self)
        return {n: nested[g][n] if g else nested[n] for n, g in self.names().items()}

    def changed(self, **values: Any) -> Self:
        """The same configuration with some values changed, by flat name."""
        return self.from_flat(**{**self.flat(), **values})


def typed(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with int converted to float where due; TypeError for any other mismatch."""
    types, checked = typing.get_type_hints(kind), {}
    for name, value in values.items():
        want = types[name]
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if typing.get_origin(want) is Literal:
            if value not in typing.get_args(want):
                raise ValueError(unknown_name(name, str(value), map(str, typing.get_args(want))))
        elif not dataclasses.is_dataclass(want) and type(value) is not want:
            given = f"{value!r} ({type(value).__name__})"
            raise TypeError(f"{kind.__name__}.{name} must be {want.__name__}, got {given}")
        checked[name] = value
    return checked


def identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a run by which it is known, in whichever group they are."""
    return {
        name: identity(value) if isinstance(value, Mapping) else value
        for name, value in metadata.items()
        if name not in NON_IDENTITY_FIELDS and LATER_FIELDS.get(name, ...) != value
    }


def digest(values: Any) -> str:
    """Eight hexadecimal digits of a hash of any JSON-like value."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
