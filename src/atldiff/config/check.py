"""Values checked at the door, and configurations built from plain JSON values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

ConfigT = TypeVar("ConfigT")


def check(condition: bool, name: str, got: object, allowed: str) -> None:
    """Raise ValueError, naming the field, what it got and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"config field {name}: got {got!r}, expected {allowed}")


def check_choice(name: str, got: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless a field is one of its words."""
    check(got in choices, name, got, " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])]))


def build(kind: type[ConfigT], values: object, where: str) -> ConfigT:
    """Return a configuration dataclass from JSON values; dataclasses within it are built likewise.

    Raises:
        ValueError: not an object, an unknown field (named), a value of a wrong type or out of range.
    """
    if not isinstance(values, dict):
        raise ValueError(f"config {where}: got {type(values).__name__}, expected an object")
    known = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"config {where}: unknown field {unknown[0]!r}; expected fields {', '.join(sorted(known))}")
    example = kind()
    plain: dict[str, Any] = {}
    for name, value in values.items():
        default = getattr(example, name)
        if default is None:
            plain[name] = None if value is None else build(_optional(kind, name), value, name)
            continue
        if is_dataclass(default) and not isinstance(default, type):
            plain[name] = build(type(default), value, name)
            continue
        plain[name] = tuple(value) if isinstance(value, list) else value
        check(_same_kind(plain[name], default), name, value, _kind(default))
    return kind(**plain)


def _optional(kind: type, name: str) -> type:
    """Return the dataclass of a field that holds one or None."""
    return next(part for part in get_args(get_type_hints(kind)[name]) if isinstance(part, type) and is_dataclass(part))


def _same_kind(value: object, example: object) -> bool:
    if isinstance(example, tuple):
        return isinstance(value, tuple) and all(_same_kind(item, example[0]) for item in value)
    if isinstance(example, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(example)


def _kind(example: object) -> str:
    if isinstance(example, tuple):
        return f"a list of values such as {example[0]!r}"
    return {int: "a whole number", float: "a number"}.get(type(example), f"a value such as {example!r}")
