"""The lines of a batch: a table or JSON lines, each the options of a video or a dub, checked before any is made."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.commands import door, dub, generate
from atldiff.commands.assign import Assigner, values_of, with_values
from atldiff.commands.message import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atldiff.commands.dub import Dub
    from atldiff.commands.generate import Generate

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
DELIMITERS = ",;\t"
PORTRAIT, VIDEO, AUDIO = "portrait", "video", "audio"
NOT_OF_A_LINE = ("live", "report", "resume")
"""Options that are of one video at a terminal: sound as it comes, what is said, and going on with a part."""
WRITTEN = (("output",), ("landmarks",), ("output_dir",))
WORDS_OR_FILES = ("face", "background", "motion_style", "weights", "generator", "renderer", "mix", "head")
"""Options of which some values are words and others are files or folders."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands: its number from 1, and its values by name; reason: why it cannot be read, or empty."""

    number: int
    values: dict[str, Any]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A line's video.

    name: its output as the line has it, output: where that is. options: all paths absolute, None where the line is bad;
    reason: why.
    """

    line: int
    name: str
    output: str
    options: Generate | Dub | None
    reason: str = ""


def read_manifest(path: Path) -> list[Line]:
    """Return the lines of a .csv or .tsv with a header, or of a .jsonl; empty ones are left out.

    Raises:
        ValueError: no such manifest, none of its lines can be one, or its header is wrong.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"manifest {path}: got suffix {path.suffix!r}, expected .csv or .jsonl")
    door.check_input(path, "manifest")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"manifest {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    try:
        lines = list(_of_json(text) if path.suffix.lower() in (".jsonl", ".ndjson") else _of_table(text))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"manifest {path}: {error}") from None
    if not lines:
        raise ValueError(f"manifest {path}: got no lines, expected one for each video")
    return lines


def _of_json(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            yield Line(number, {}, f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield Line(number, values)
        else:
            yield Line(number, {}, f'got a {type(values).__name__}, expected an object such as {{"portrait": ...}}')


def _of_table(text: str) -> Iterator[Line]:
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names, end = None, 0
    for row in rows:
        number, end = end + 1, rows.line_num
        if not any(cell.strip() for cell in row):
            continue
        if names is None:
            names = [name.strip() for name in row]
            _check_header(names, number)
        elif len(row) > len(names):
            yield Line(number, {}, f"got {len(row)} cells, expected the {len(names)} of the header; quote commas")
        else:
            yield Line(number, {name: cell.strip() for name, cell in zip(names, row, strict=False) if name})


def _check_header(names: list[str], number: int) -> None:
    """Raise ValueError unless the columns are options, of which one is portrait or video and another audio."""
    places = []
    for name in filter(None, names):
        try:
            place = (DUBBED if DUBBED.knows(name) and not GENERATED.knows(name) else GENERATED).place(name)
        except ValueError as error:
            raise ValueError(f"line {number}: column {error}") from None
        if place in places:
            raise ValueError(f"line {number}: column {name}: got it a second time, expected each option once")
        places.append(place)
    if AUDIO not in places or not {PORTRAIT, VIDEO} & set(places):
        raise ValueError(
            f"line {number}: got columns {', '.join(names)}, expected a header with {PORTRAIT} (or {VIDEO}) and {AUDIO}"
        )


def _named() -> dict[str, str]:
    """Return other programs' names of options and ours."""
    positionals = dict.fromkeys(generate.ALIASES.positionals[0], PORTRAIT)
    positionals |= dict.fromkeys(generate.ALIASES.positionals[1], AUDIO)
    return positionals | dict(generate.ALIASES.options)


GENERATED = Assigner(generate.Generate, without=NOT_OF_A_LINE, aliases=_named())
DUBBED = Assigner(dub.Dub, without=NOT_OF_A_LINE, aliases={AUDIO: "speech", **dub.ALIASES.options})
"""What may stand in a line with a portrait, and in one with a video."""


def check_lines(lines: list[Line], defaults: Mapping[str, Any], base: Path, outputs: Path) -> list[Item]:
    """Return each line's item, checked as `generate` and `dub` do at their doors, and that no two write one file.

    defaults: options of lines that say nothing else, by name. base: folder that inputs are relative to. outputs:
    likewise.
    """
    items = [_item(line, defaults, base, outputs) for line in lines]
    written: dict[Path, int] = {}
    read: dict[Path, int] = {}
    for item in items:
        for path in inputs_of(item.options) if item.options else ():
            read.setdefault(path.resolve(), item.line)
    checked = []
    for item in items:
        reason = item.reason
        targets = [] if item.options is None else [Path(item.output).resolve()]
        if isinstance(item.options, generate.Generate) and item.options.landmarks is not None:
            targets.append(item.options.landmarks.resolve())
        for target in targets:
            if target in written:
                reason = f"output {target.name}: got it on line {written[target]} too, expected one of its own"
            elif target in read:
                reason = f"output {target.name}: would replace an input of line {read[target]}, expected another name"
        if reason:
            checked.append(Item(item.line, item.name, item.output, None, reason))
        else:
            written.update(dict.fromkeys(targets, item.line))
            checked.append(item)
    return checked


def _item(line: Line, defaults: Mapping[str, Any], base: Path, outputs: Path) -> Item:
    named = str(line.values.get("output") or "")
    if line.reason:
        return Item(line.number, named, named, None, line.reason)
    try:
        options = _absolute(_options(line.values, defaults), base, outputs)
        if options.output == door.STDOUT:
            raise ValueError("output: got - in a batch, expected a file")
        if isinstance(options, generate.Generate):
            generate.check_inputs(options)
            output = generate.check(options).output
        else:
            output = dub.check(options)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a line, the others are made
        return Item(line.number, named, named, None, one_line(error))
    options = with_values(options, {("output",): output, ("output_dir",): None})
    return Item(line.number, named or Path(output).name, output, options)


def _options(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Generate | Dub:
    """Return what a line says, and the defaults say of the rest.

    Raises:
        ValueError: an option that does not exist or a value that it does not take.
    """
    said = {name: value for name, value in values.items() if value is not None and value != ""}
    if any(DUBBED.knows(name) and DUBBED.place(name) == VIDEO for name in said):
        nothing, assigner = dub.Dub(Path(), Path()), DUBBED
        foreign = [name for name in said if not DUBBED.knows(name) and GENERATED.knows(name)]
        if foreign:
            what = "got it with a video, expected one of them" if foreign[0] == PORTRAIT else "no option of a dub"
            raise ValueError(f"{foreign[0]}: {what}: leave it empty")
        needed = ((VIDEO, VIDEO), ("speech", AUDIO))
    else:
        nothing, assigner = generate.Generate(Path()), GENERATED
        foreign = [name for name in said if not GENERATED.knows(name) and DUBBED.knows(name)]
        if foreign:
            raise ValueError(f"{foreign[0]}: an option of a dub, got it without a video: leave it empty")
        needed = ((PORTRAIT, PORTRAIT), (AUDIO, AUDIO))
    options = assigner.set(nothing, {name: value for name, value in defaults.items() if assigner.knows(name)})
    options = assigner.set(options, said)
    for field, name in needed:
        if getattr(options, field) in (None, Path()):
            raise ValueError(f"{name}: got none, expected a file")
    return options


def _absolute(options: Generate | Dub, base: Path, outputs: Path) -> Generate | Dub:
    """Return options whose paths are absolute; of words that may be paths, those that are there."""
    changed: dict[tuple[str, ...], Any] = {}
    for place, value in values_of(options, type(options)).items():
        if place == ("output",):
            if value not in (None, door.STDOUT):
                changed[place] = os.path.join(outputs, value)  # noqa: PTH118 - a slash at the end asks for a folder
        elif place == ("output_dir",):
            changed[place] = None if options.output is not None and value is None else outputs / (value or "")
        elif isinstance(value, Path):
            changed[place] = (outputs if place == ("landmarks",) else base) / value
        elif isinstance(value, tuple):
            changed[place] = tuple(base / each if isinstance(each, Path) else each for each in value)
        elif place[-1] in WORDS_OR_FILES and isinstance(value, str) and _is_there(base / value):
            changed[place] = str(base / value)
    return with_values(options, changed)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a word that is too long for a name
        return False


def inputs_of(options: Generate | Dub) -> list[Path]:
    """Return the files and folders that a video is made of, those that are there."""
    found = []
    for place, value in values_of(options, type(options)).items():
        if place in WRITTEN:
            continue
        for each in value if isinstance(value, tuple) else (value,):
            may_be = isinstance(each, Path) or (place[-1] in WORDS_OR_FILES and isinstance(each, str))
            if may_be and Path(each).is_absolute() and _is_there(Path(each)):
                found.append(Path(each))
    return found
