"""The option names of the field's other programs, rewritten into ours before tyro sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PORTRAIT = ("--portrait", "--source-image", "--source", "-s")
AUDIO = ("--audio", "--driven-audio", "--driving-audio", "--audio-path")
OUTPUT = {
    "--out": "--output",
    "--output-path": "--output",
    "--result-path": "--output",
    "--result-dir": "--output-dir",
}
STEPS = {"--inference-steps": "--steps", "--num-inference-steps": "--steps"}
DRIVING = {"--driving": "--driving-video"}
CONTROLS = {"--blink-rate": "--blink-rate-hz", "--smoothing": "--smoothing-frames"}


@dataclass(frozen=True, slots=True)
class Aliases:
    """The aliases of one sub-command, written with dashes; underscores mean the same.

    positionals: for each of its first positional arguments, in order, the options that give it. options: alias to our
    own option.
    """

    positionals: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*(name for names in self.positionals for name in names), *self.options)


def rewrite(args: list[str], aliases: Aliases) -> list[str]:
    """Return the arguments with every alias replaced by our own option or positional argument.

    Raises:
        ValueError: an alias of a positional argument without a value, or given twice.
    """
    index_of = {name: index for index, names in enumerate(aliases.positionals) for name in names}
    given: dict[int, str] = {}
    rest: list[str] = []
    tokens = iter(args)
    for token in tokens:
        name, equals, value = token.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        if name in index_of:
            if not equals:
                value = next(tokens, "")
            if not value or value.startswith("--"):
                raise ValueError(f"{name}: got no value, expected a path")
            if index_of[name] in given:
                raise ValueError(f"{name}: got {value!r} after {given[index_of[name]]!r}, expected it once")
            given[index_of[name]] = value
        elif name in aliases.options:
            rest.append(aliases.options[name] + equals + value)
        else:
            rest.append(token)
    # Those before the first gap come first; after a gap the user's own positional argument lies in between.
    gap = next(index for index in range(len(aliases.positionals) + 1) if index not in given)
    before = [given[index] for index in range(gap)]
    return before + rest + [given[index] for index in sorted(given) if index > gap]
