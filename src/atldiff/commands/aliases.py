"""The option names of the field's other programs, rewritten into ours before tyro sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atldiff.commands.substitutes import Substitute

PORTRAIT = ("--portrait", "--source-image", "--source", "-s", "--source-path", "--video-path")
AUDIO = ("--audio", "--driven-audio", "--driving-audio", "--audio-path")
OUTPUT = {
    "--out": "--output",
    "--output-path": "--output",
    "--result-path": "--output",
    "--outfile": "--output",
    "--output-vid-name": "--output",
    "--video-out-path": "--output",
    "--result-dir": "--output-dir",
}
STEPS = {"--inference-steps": "--steps", "--num-inference-steps": "--steps"}
DRIVING = {"--driving": "--driving-video", "--ref-pose": "--driving-video"}
WEIGHTS = {
    "--checkpoint": "--weights",
    "--checkpoint-path": "--weights",
    "--checkpoint-dir": "--weights",
    "--inference-ckpt-path": "--weights",
}
CONTROLS = {"--blink-rate": "--blink-rate-hz", "--smoothing": "--smoothing-frames"}


_FACE = "--face"
"""A file with a face in Wav2Lip; of ours, which face, a number."""

_GOES_ON = (_FACE, "--video-path")
"""Where other programs keep a video moving, and ours takes one frame of it."""

_VIDEO = re.compile(r".*\.(mp4|mov|mkv|webm|avi|m4v)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Aliases:
    """The aliases of one sub-command, written with dashes; underscores mean the same.

    positionals: for each of its first positional arguments, in order, the options that give it. options: alias to our
    own option. substitutes: options that have no namesake, and what stands for them.
    """

    positionals: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    substitutes: Mapping[str, Substitute] = field(default_factory=dict)

    @property
    def suggestions(self) -> dict[str, str]:
        """Each alias and what to suggest where it is misspelt: our own option, where there is one."""
        return {name: name for names in self.positionals for name in names} | dict(self.options)


class Rewritten(NamedTuple):
    """The arguments in our own words, and what to tell about those that were left out."""

    args: list[str]
    notes: list[str]


def rewrite(args: list[str], aliases: Aliases) -> Rewritten:
    """Replace every alias by our own option or positional argument.

    Raises:
        ValueError: an alias of a positional argument without a value, or given twice; an option that asks for what
            there is not.
    """
    index_of = {name: index for index, names in enumerate(aliases.positionals) for name in names}
    given: dict[int, str] = {}
    rest: list[str] = []
    notes: list[str] = []
    tokens = list(args)
    while tokens:
        token = tokens.pop(0)
        typed, equals, value = token.partition("=")
        name = "--" + typed[2:].replace("_", "-") if typed.startswith("--") else typed
        if name in index_of or (PORTRAIT in aliases.positionals and _is_file(name, value if equals else tokens[:1])):
            if not equals:
                value = tokens.pop(0) if tokens else ""
            if not value or value.startswith("--"):
                raise ValueError(f"{typed}: got no value, expected a path")
            index = index_of.get(name, 0)
            if index in given:
                raise ValueError(f"{typed}: got {value!r} after {given[index]!r}, expected it once")
            given[index] = value
            if name in _GOES_ON and _VIDEO.fullmatch(value):
                notes.append(f"{typed}: one frame of the video is animated; --driving-video {value} adds its motion")
        elif name in aliases.options:
            rest.append(aliases.options[name] + equals + value)
        elif name in aliases.substitutes:
            substitute = aliases.substitutes[name]
            become, note = substitute.apply(typed, substitute.value(typed, value if equals else None, tokens))
            rest += become
            notes += [note] if note else []
        else:
            rest.append(token)
    # Those before the first gap come first; after a gap the user's own positional argument lies in between.
    gap = next(index for index in range(len(aliases.positionals) + 1) if index not in given)
    before = [given[index] for index in range(gap)]
    return Rewritten(before + rest + [given[index] for index in sorted(given) if index > gap], notes)


def _is_file(name: str, value: str | list[str]) -> bool:
    """Return whether it is `--face` with something else than a number."""
    word = value if isinstance(value, str) else "".join(value)
    return name == _FACE and bool(word) and not word.startswith("--") and not re.fullmatch(r"-?\d+|None", word)
