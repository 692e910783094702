"""What is wrong with a sub-command's arguments, in one line: looked for before tyro, whose own answers take several."""

from __future__ import annotations

import re
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Option:
    """One option or positional argument, as the field of an options class describes it.

    names: with their dashes, the long one last; of a positional argument the field's name. kind: the type of one value,
    without None. many: takes as many values as there are. place: the fields that lead to it from the options class.
    """

    names: tuple[str, ...]
    kind: Any
    metavar: str
    positional: bool
    required: bool
    many: bool
    may_be_none: bool
    place: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name that messages use."""
        return self.names[-1]

    @property
    def is_flag(self) -> bool:
        """Whether it is a switch, without a value."""
        return self.kind is bool and not self.positional

    @property
    def placeholder(self) -> str:
        """How a usage line shows it."""
        if not self.positional:
            return f"{self.name} {self.metavar}".strip()
        return self.metavar if self.required or self.metavar.startswith("[") else f"[{self.metavar}]"

    @property
    def choices(self) -> list[str]:
        """The words that are taken, where not every word is."""
        return [str(word) for kind in _members(self.kind) if get_origin(kind) is Literal for word in get_args(kind)]

    @property
    def expected(self) -> str:
        """What its values are, in words."""
        numbers = [_EXPECTED[kind] for kind in _members(self.kind) if kind in _EXPECTED]
        return _either(numbers + self.choices) if numbers or self.choices else self.metavar

    def check(self, value: str, given: str) -> None:
        """Raise ValueError unless `value` is one of the kind; given: the option's name as the user wrote it."""
        if self.may_be_none and value == "None":
            return
        if not any(_reads(value, kind) for kind in _members(self.kind)):
            near = get_close_matches(value, self.choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{given}: got {value!r}, expected {self.expected}{hint}")


_EXPECTED = {int: "a whole number", float: "a number"}


def check(kind: type, command: str, args: list[str], aliases: Mapping[str, str] | None = None) -> None:
    """Raise unless the arguments of a sub-command fit its options class.

    command: the sub-command's name. aliases: other names, and what is suggested to whoever misspells one.

    Raises:
        ValueError: in one line, an option that does not exist, that lacks its value, was given a wrong one or two
        different ones, or positional arguments that are missing or too many.
    """
    options = list(options_of(kind))
    names = {name: option for option in options for name in option.names if not option.positional}
    given: dict[str, str] = {}
    values: list[str] = []
    rest = list(args)
    while rest:
        token = rest.pop(0)
        if token == "--":
            values += rest
            break
        if not _is_option(token):
            values.append(token)
            continue
        typed, equals, attached = token.partition("=")
        name = "--" + typed[2:].replace("_", "-") if typed.startswith("--") else typed
        if name not in names and not typed.startswith("--") and typed[:2] in names:  # -oout.mp4
            typed, name, equals, attached = typed[:2], typed[:2], "=", token[2:].removeprefix("=")
        if name not in names:
            raise ValueError(
                f"{typed}: no such option{_nearest(name, {**dict.fromkeys(names), **(aliases or {})}, command)}"
            )
        option = names[name]
        if option.is_flag:
            if equals:
                raise ValueError(f"{typed}: got {attached!r}, expected no value: it is a switch")
            continue
        taken = [attached] if equals else []
        while rest and not _is_option(rest[0]) and (option.many or not taken):
            taken.append(rest.pop(0))
        if not taken and not option.many:
            raise ValueError(f"{typed}: got no value, expected {option.expected}")
        for value in taken:
            option.check(value, typed)
        if given.setdefault(option.name, " ".join(taken)) != " ".join(taken):
            once = f"it once{', with all of them after it' if option.many else ''}"
            raise ValueError(f"{typed}: got {given[option.name]!r} and {' '.join(taken)!r}, expected {once}")
    _check_positionals(options, command, values)
    missing = [o.placeholder for o in options if o.required and not o.positional and o.name not in given]
    if missing:
        raise ValueError(f"{command}: got no {' and no '.join(missing)} (see `atldiff {command} --help`)")


def condensed(said: str) -> str:
    """Return as one line what tyro says of arguments in a box: what `check` let pass, such as a value out of range."""
    inside = " ".join(line.strip("╭╰│╮╯|+ ") for line in said.splitlines())
    parts = [part for part in re.split(r"\s*[─-]{3,}\s*", inside.replace("─ ", "", 1)) if part]  # title, message, more
    return re.sub(r"^Error parsing \S+: ", "", " ".join(parts[1 if len(parts) > 1 else 0].split()))


def _check_positionals(options: list[Option], command: str, values: list[str]) -> None:
    places = [option for option in options if option.positional]
    usage = " ".join(place.placeholder for place in places)
    required = [place for place in places if place.required]
    if len(values) < len(required):
        line = " ".join(o.placeholder for o in options if o.positional or o.required)
        raise ValueError(f"{command}: got no {required[len(values)].placeholder}, expected atldiff {command} {line}")
    if len(values) > len(places) and not any(place.many for place in places):
        extra, hint = values[len(places)], "; a name with spaces needs quotes" if places else ""
        raise ValueError(
            f"{command}: got {extra!r} as well, expected {f'only {usage}' if usage else 'options only'}{hint}"
        )
    for place, value in zip(places, values, strict=False):
        place.check(value, place.name)


def options_of(kind: type, default: object = None, within: tuple[str, ...] = ()) -> Iterator[Option]:
    """Yield the options of an options class and of the classes within, as tyro names them.

    default: an instance whose values stand for the fields' own defaults. within: fields that lead to this class.
    """
    hints = get_type_hints(kind, include_extras=True)
    for entry in fields(kind):
        hint, marks = hints[entry.name], ()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
        value = getattr(default, entry.name) if default is not None else entry.default
        if value is MISSING and entry.default_factory is not MISSING:
            value = entry.default_factory()
        if is_dataclass(hint) and isinstance(hint, type):
            yield from options_of(hint, None if value is MISSING else value, (*within, entry.name))
            continue
        yield _option((*within, entry.name), hint, marks, value)


def _option(place: tuple[str, ...], hint: Any, marks: Iterable[Any], default: object) -> Option:
    members = _members(hint)
    kinds = [kind for kind in members if kind is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - built at run time
    many = get_origin(kind) in (tuple, list)
    if many:
        kind = get_args(kind)[0]
    metavar, short = "", ()
    for mark in marks:
        metavar = getattr(mark, "metavar", None) or metavar
        short = tuple(getattr(mark, "aliases", None) or ()) or short
    name = place[-1].replace("_", "-")
    positional = any(mark is tyro.conf.Positional for mark in marks)
    if positional:
        names: tuple[str, ...] = (name,)
    else:
        names = (*short, f"--no-{name}" if kind is bool and default is True else f"--{name}")
    if not metavar and kind is not bool:
        metavar = {int: "INT", float: "FLOAT"}.get(kind, name.upper())
    return Option(names, kind, metavar, positional, default is MISSING, many, type(None) in members, place)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _reads(value: str, kind: Any) -> bool:
    """Return whether a word is a value of a type: a number, or one of a few words; of all others every word is."""
    if get_origin(kind) is Literal:
        return value in map(str, get_args(kind))
    try:
        _ = kind(value) if kind in _EXPECTED else None
    except ValueError:
        return False
    return True


def _is_option(token: str) -> bool:
    return token.startswith("-") and token.lstrip("-")[:1].isalpha() and not _reads(token, float)


def _nearest(name: str, known: Mapping[str, str | None], command: str) -> str:
    near = [other for other in known if other.startswith(name)] or get_close_matches(name, known, n=1)
    return f"; did you mean {known[near[0]] or near[0]}?" if near else f" (see `atldiff {command} --help`)"


def _either(words: Iterable[Any]) -> str:
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last
