"""`atldiff batch`: a list of portraits and recordings becomes their videos; the same command makes what is missing."""

from __future__ import annotations

import logging
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from atldiff.commands import aliases, door, dub, generate
from atldiff.commands.assign import values_of
from atldiff.commands.message import one_line
from atldiff.commands.options import (
    DrivingOptions,
    EditOptions,
    FaceOptions,
    ModelOptions,
    PictureOptions,
    ReferenceOptions,
    ReportOptions,
    SoundOptions,
    optional,
    read,
)
from atldiff.commands.progress import Progress, Stopwatch, say, write_json
from atldiff.types import Controls

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from atldiff.commands.batch_results import Result
    from atldiff.commands.manifest import Item
    from atldiff.pipeline import TalkingHead

HEADS = 2
"""Checkpoints that a worker keeps loaded."""
THREADS = 4
"""A worker more for so many threads that may compute: more of them make one video hardly faster."""
ALIASES = aliases.Aliases(
    options={"--report": "--results", **aliases.STEPS, **aliases.DRIVING, **aliases.CONTROLS, **aliases.WEIGHTS}
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Make the videos of a list: a line each with portrait, audio, output and any options of `atldiff generate`.

    A line with video instead of portrait is dubbed, with options of `atldiff dub`. The same command again makes only
    what is missing or has changed. A bad line never stops the others; the exit code is 1 if any line failed.
    """

    manifest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]
    """A .csv with a header, or a .jsonl of objects: columns or keys are portrait or video, audio, output, and options
    by the names of their flags. Paths are relative to its folder."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder that outputs are relative to, made where it is missing; that of MANIFEST when left out."""
    workers: Annotated[str | None, optional("N|ray|ray:N")] = None
    """Videos made at a time, each in a process that loads the networks once; 0 stays in this one. ray takes the cluster
    of RAY_ADDRESS, or starts one. One for every four cores when left out, and one on a GPU."""
    results: Annotated[Path | None, optional("FILE.jsonl")] = None
    """What became of each line; MANIFEST.results.jsonl when left out."""
    check: bool = False
    """Check all lines, make nothing."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; 25 when left out."""
    preview: bool = False
    """Show the landmarks, drawn over the portrait, on the right of the result."""
    sound: SoundOptions = field(default_factory=SoundOptions)
    driving: DrivingOptions = field(default_factory=DrivingOptions)
    controls: Controls = field(default_factory=Controls)
    edits: EditOptions = field(default_factory=EditOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
    references: ReferenceOptions = field(default_factory=ReferenceOptions)
    render: PictureOptions = field(default_factory=PictureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


class Made(NamedTuple):
    """What a worker made of an item. reason: why nothing, or empty. warnings: what was said meanwhile."""

    reason: str
    frames: int | None
    duration_s: float | None
    seconds: float
    warnings: tuple[str, ...]


class Crew(NamedTuple):
    """Who works. count: 0 for this process, None for as many as there is room for."""

    ray: bool
    count: int | None


def run(args: list[str]) -> int:
    """Run the sub-command; 1 when a line failed."""
    options = read(Batch, "batch", args, ALIASES)
    crew = parse_workers(options.workers)
    quiet, watch = options.report.quiet, Stopwatch()

    from atldiff.commands.batch_results import SKIPPED, Results, made_of, read_results
    from atldiff.commands.manifest import check_lines, read_manifest

    lines = read_manifest(options.manifest)
    results = options.results or options.manifest.with_suffix(".results.jsonl")
    door.check_file_target(results, ".jsonl")
    door.refuse_replacing(results, options.manifest)
    base = options.manifest.absolute().parent
    outputs = base if options.output_dir is None else _made(options.output_dir)
    items = check_lines(lines, _defaults(options), base, outputs)
    before = read_results(results)
    digests = {item.line: made_of(item.options) for item in items if item.options is not None}
    kept = [
        replace(last, line=item.line, status=SKIPPED, reason=None)
        for item in items
        if item.options is not None
        and (last := before.get(item.output)) is not None
        and last.made_of == digests[item.line]
        and last.is_whole
        and (not (track := getattr(item.options, "landmarks", None)) or track.exists())
    ]
    bad = [item for item in items if item.options is None]
    skipped = {result.line for result in kept}
    todo = [item for item in items if item.options is not None and item.line not in skipped]
    for item in bad:
        say(_failed(item, item.reason))
    if options.check:
        counts = {"lines": len(items), "missing": len(todo), "skipped": len(kept), "failed": len(bad)}
        _finish(options, counts, f"{len(todo)} to be made, {len(kept)} made before, {len(bad)} bad")
        return 1 if bad else 0

    names = {item.line: item.name for item in items}
    for result in kept:
        say(f"line {result.line}: {names[result.line]}: skipped: made before", quiet=quiet)
    book = Results(results, kept)
    failed = len(bad)
    try:
        for item in bad:
            book.add(_result(item, Made(item.reason, None, None, 0.0, ()), None))
        with Progress("videos", quiet=quiet) as progress, closing(_at_work(todo, crew, options)) as finished:
            progress(0, len(todo))
            for done, (item, made) in enumerate(finished, 1):
                failed += bool(made.reason)
                book.add(_result(item, made, digests[item.line]))
                _tell(item, made, quiet=quiet)
                progress(done, len(todo))
    finally:
        book.close()
    made = len(items) - len(kept) - failed
    counts = {"lines": len(items), "done": made, "skipped": len(kept), "failed": failed}
    said = f"{made} made, {len(kept)} made before, {failed} failed in {watch.total:.1f} s"
    _finish(options, {**counts, "results": str(results), "seconds": round(watch.total, 3)}, f"{said}: {results}")
    return 1 if failed else 0


def parse_workers(text: str | None) -> Crew:
    """Return who works: a number of processes, `ray`, `ray:N`, or None for a choice of ours.

    Raises:
        ValueError: another word.
    """
    if text is None:
        return Crew(ray=False, count=None)
    found = re.fullmatch(r"(\d+)|ray(?::([1-9]\d*))?", text)
    if found is None:
        raise ValueError(f"workers: got {text!r}, expected a number of at least 0, ray, or ray:N")
    number = found[1] or found[2]
    return Crew(ray=found[1] is None, count=None if number is None else int(number))


def _made(folder: Path) -> Path:
    door.default_output(Path(), Path(), "", output=None, folder=folder)
    return folder.absolute()


def _defaults(options: Batch) -> dict[str, object]:
    """Return the options that lines are made with that say nothing else, by name: those that say something."""
    groups = ("sound", "driving", "controls", "face", "references", "render", "model")
    plain = values_of(Batch(options.manifest), Batch)
    said = {place: value for place, value in values_of(options, Batch).items() if value != plain[place]}
    return {
        place[-1]: _from_here(value, place[-1])
        for place, value in said.items()
        if place[0] in groups or place == ("fps",)
    }


def _from_here(value: object, name: str) -> object:
    """Return a value of the command line, whose paths are relative to where it was given."""
    from atldiff.commands.manifest import WORDS_OR_FILES

    if isinstance(value, tuple):
        return [_from_here(each, name) for each in value]
    if isinstance(value, str) and name in WORDS_OR_FILES and Path(value).exists():
        value = Path(value)
    return str(value.absolute()) if isinstance(value, Path) else value


def _at_work(todo: Sequence[Item], crew: Crew, options: Batch) -> Generator[tuple[Item, Made]]:
    """Yield each item with what was made of it, as they finish; whatever is half made is gone at the end."""
    from atldiff.commands.crew import Died, in_processes, in_this_process, on_ray
    from atldiff.files import clear

    left = {item.line: item for item in todo}
    if crew.ray:
        at_work = on_ray(make_item, todo, count=crew.count)
    elif crew.count == 0:
        at_work = in_this_process(make_item, todo)
    else:
        from atldiff.machine import computing_threads

        threads = computing_threads()
        count = min(crew.count or (1 if _on_gpu(options) else max(1, threads // THREADS)), max(1, len(todo)))
        at_work = in_processes(make_item, todo, count=count, threads=max(1, threads // count))
    try:
        with closing(at_work):
            for item, result in at_work:
                del left[item.line]
                if isinstance(result, Died):
                    clear(Path(item.output))
                    result = Made(result.reason, None, None, 0.0, ())
                yield item, result
    finally:
        for item in left.values():  # of workers that were ended
            clear(Path(item.output))


def _on_gpu(options: Batch) -> bool:
    from atldiff.runtime.choose import gpu_at_hand

    return options.model.device != "cpu" and gpu_at_hand()


def make_item(item: Item) -> Made:
    """Make the video of an item, in a worker; whatever goes wrong with it is told, not raised."""
    assert item.options is not None  # noqa: S101 - for the type checker: bad lines reach no worker
    watch = Stopwatch()
    frames = duration_s = None
    with _warnings() as warnings:
        try:
            if isinstance(item.options, dub.Dub):
                dubbed = dub.make(item.options, item.output, watch, quiet=True, load=_head)
                frames, duration_s = len(dubbed), round(float(dubbed.duration), 3)
            else:
                checked = generate.check(item.options)
                track, written = generate.make(item.options, checked, watch, quiet=True, load=_head)
                frames = len(track) if written is None else written.frames
                duration_s = round(len(track) / float(track.fps), 3)
            reason = ""
        except Exception as error:  # noqa: BLE001 - one video never stops the others
            reason = one_line(error)
    return Made(reason, frames, duration_s, round(watch.total, 3), tuple(warnings))


@lru_cache(maxsize=HEADS)
def _head(options: ModelOptions) -> TalkingHead:
    return door.load_head(options, quiet=True)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Gather what the library warns of, instead of showing it without its line."""
    said: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and (text := record.getMessage()) not in said:
                said.append(text)

    logger = logging.getLogger("atldiff")
    before, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Gather()], False
    try:
        yield said
    finally:
        logger.handlers, logger.propagate = before, propagate


def _result(item: Item, made: Made, digest: str | None) -> Result:
    from atldiff.commands.batch_results import DONE, FAILED, Result, size_of

    failed = bool(made.reason)
    return Result(
        line=item.line,
        output=item.output,
        status=FAILED if failed else DONE,
        reason=made.reason or None,
        made_of=None if failed else digest,
        size=None if failed else size_of(item.output),
        frames=made.frames,
        duration_s=made.duration_s,
        seconds=made.seconds or None,
        warnings=made.warnings,
    )


def _tell(item: Item, made: Made, *, quiet: bool) -> None:
    for warning in made.warnings:
        say(f"line {item.line}: warning: {warning}", quiet=quiet)
    if made.reason:
        say(_failed(item, made.reason))
    else:
        said = f"{item.name}: done: {made.duration_s:.1f} s, {made.frames} frames, made in {made.seconds:.1f} s"
        say(f"line {item.line}: {said}", quiet=quiet)


def _failed(item: Item, reason: str) -> str:
    return f"line {item.line}:{f' {item.name}:' if item.name else ''} failed: {reason}"


def _finish(options: Batch, counts: Mapping[str, object], said: str) -> None:
    if options.report.json:
        write_json({"manifest": str(options.manifest), **counts})
    else:
        say(f"{options.manifest}: {said}", quiet=options.report.quiet)
