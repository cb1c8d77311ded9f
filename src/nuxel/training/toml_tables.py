"""TOML tables made into dataclasses, every key and type checked: one sentence, with the nearest right key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nuxel.errors import NuxelError, UsageError

T = TypeVar("T")


def build_table(kind: type[T], values: object, where: str) -> T:
    """A (nested) dataclass from a TOML table, every key and type checked."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a table")
    hints = typing.get_type_hints(kind)
    check_keys(values, set(hints), where)
    built = {}
    for key, value in values.items():
        place = f"{where}: [{key}]" if dataclasses.is_dataclass(hints[key]) else f"{where} {key}"
        built[key] = _value(hints[key], value, place)
    missing = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in built
    ]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} is missing")
    try:
        return kind(**built)
    except NuxelError as error:
        raise UsageError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build_table(hint, value, where)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            hint_of_tables = (
                ": write [[...]] with two brackets for each" if isinstance(value, Mapping) else ""
            )
            raise UsageError(f"{where} must be a list, got {value!r}{hint_of_tables}")
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise UsageError(f"{where} must be a list of {len(inner)}, got {value!r}")
        return tuple(_value(inner[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a table, got {value!r}")
        return {str(k): str(v) for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):  # with None, which TOML cannot write
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return _value(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{where} must be {_KINDS[hint]}, got {value!r}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def check_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a key that is not known."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise UsageError(f"{where}: unknown key {key!r}; {hint}")
