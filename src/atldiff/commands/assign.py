"""Options of a sub-command as a table or a JSON object has them: by the names of their flags."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from atldiff.commands.usage import options_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from atldiff.commands.usage import Option

    OptionsT = TypeVar("OptionsT")

MANY = ";"
"""What parts the values of an option that takes several, in one cell of a table."""
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Assigner:
    """Sets the options of a class by name: `head-motion`, `head_motion` and `--head-motion` are one.

    Switches are true or false, by the name of the flag or, of one that is on, without its `no-`.
    """

    def __init__(self, kind: type, *, without: Collection[str] = (), aliases: Mapping[str, str] | None = None) -> None:
        """kind: the options class. without: its fields whose options are not taken. aliases: other names to ours."""
        self._command = kind.__name__.lower()
        self._options: dict[str, tuple[Option, bool]] = {}
        for option in options_of(kind):
            if option.place[0] in without or option.place[-1] in without:
                continue
            for name in option.names if option.positional else option.names[-1:]:
                self._options[_plain(name)] = (option, name.startswith("--no-"))
            self._options[_plain(option.place[-1])] = (option, False)
        for alias, name in (aliases or {}).items():
            if _plain(name) in self._options:
                self._options.setdefault(_plain(alias), self._options[_plain(name)])

    def knows(self, name: str) -> bool:
        """Return whether it is an option's name."""
        return _plain(name) in self._options

    def place(self, name: str) -> str:
        """Return the name of an option's field as a path, such as `controls.head_motion`.

        Raises:
            ValueError: no such option.
        """
        return ".".join(self._of(name)[0].place)

    def set(self, options: OptionsT, values: Mapping[str, Any]) -> OptionsT:
        """Return the options with other values: text as on the command line, or numbers, booleans and lists.

        None and empty text leave an option as it is.

        Raises:
            ValueError: an option that does not exist or is given twice, or a value that it does not take.
        """
        given: dict[tuple[str, ...], Any] = {}
        for name, value in values.items():
            option, negated = self._of(name)
            if value is None or value == "":
                continue
            if option.place in given:
                raise ValueError(f"{name}: got it a second time, expected each option once")
            given[option.place] = not _switch(name, value) if negated else _value(option, name, value)
        return _replaced(options, given)

    def _of(self, name: str) -> tuple[Option, bool]:
        found = self._options.get(_plain(name))
        if found is None:
            near = get_close_matches(_plain(name), self._options, n=1)
            hint = f"; did you mean {near[0]}?" if near else f" (see `atldiff {self._command} --help`)"
            raise ValueError(f"{name}: no such option{hint}")
        return found


def values_of(options: object, kind: type) -> dict[tuple[str, ...], Any]:
    """Return the value of each option by its place."""
    found = {}
    for option in options_of(kind):
        value = options
        for name in option.place:
            value = getattr(value, name)
        found[option.place] = value
    return found


def with_values(options: OptionsT, values: Mapping[tuple[str, ...], Any]) -> OptionsT:
    """Return the options with other values, by their places."""
    return _replaced(options, dict(values))


def _plain(name: str) -> str:
    return name.strip().lstrip("-").replace("_", "-").lower()


def _value(option: Option, name: str, value: Any) -> Any:
    if option.is_flag:
        return _switch(name, value)
    if option.many:
        parts = value if isinstance(value, list | tuple) else [part.strip() for part in str(value).split(MANY)]
        return tuple(_single(option, name, part) for part in parts if part != "")
    return _single(option, name, value)


def _single(option: Option, name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name}: got {value!r}, expected {option.expected}")
    text = str(value)
    option.check(text, name)
    kinds = get_args(option.kind) if get_origin(option.kind) not in (Literal, None) else (option.kind,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            if text in map(str, get_args(kind)):
                return next(word for word in get_args(kind) if str(word) == text)
        elif kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
        else:
            return Path(text) if kind is Path else text
    raise ValueError(f"{name}: got {value!r}, expected {option.expected}")


def _switch(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{name}: got {value!r}, expected true or false")
    return text in _TRUE


def _replaced(options: Any, values: dict[tuple[str, ...], Any]) -> Any:
    own = {place[0]: value for place, value in values.items() if len(place) == 1}
    within: dict[str, dict[tuple[str, ...], Any]] = {}
    for place, value in values.items():
        if len(place) > 1:
            within.setdefault(place[0], {})[place[1:]] = value
    own |= {name: _replaced(getattr(options, name), inner) for name, inner in within.items()}
    return replace(options, **own) if own else options
