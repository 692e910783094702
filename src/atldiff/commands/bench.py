"""`atldiff bench`: how fast this machine makes videos, and which of several ways is the faster."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from atldiff import interrupt
from atldiff.commands import aliases, door
from atldiff.commands.options import ModelOptions, RenderOptions, ReportOptions, closest, optional, read
from atldiff.commands.progress import Progress, console, write_json
from atldiff.config import Preset, SampleConfig

if TYPE_CHECKING:
    from atldiff.bench.plan import Plan, Variant

MOST_SECONDS, MOST_RUNS, MOST_JOBS = 3600, 100, 64
SIZES = (64, 8192)
ALIASES = aliases.Aliases(positionals=(aliases.PORTRAIT, aliases.AUDIO), options=aliases.STEPS)


@dataclass(frozen=True, slots=True)
class Bench:
    """Measure how fast videos are made here: end to end, by stage, streaming, from a cold start.

    Without PORTRAIT and AUDIO the bundled example is measured. Leave the machine alone meanwhile.
    """

    portrait: Annotated[tyro.conf.Positional[Path | None], optional("[PORTRAIT]")] = None
    """A picture, or a video of which one frame is taken."""
    audio: Annotated[tyro.conf.Positional[Path | None], optional("[AUDIO]")] = None
    """An audio file, or a video with sound."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 10.0
    """Length of the sound, which is cut or repeated to it. 1 to 3600."""
    runs: Annotated[int, tyro.conf.arg(metavar="N")] = 5
    """Times that everything is measured, after a warm-up. 1 to 100."""
    compare: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="OPTION=VALUE[,...]", help_behavior_hint="(once for each variant)"),
    ] = ()
    """Measure the same with this option changed as well, in turn with the rest, and print ratios:
    --compare dtype=float32 --compare weights=FOLDER,preset=fast."""
    lengths: Annotated[tuple[float, ...], optional("S ...")] = ()
    """Also render so many seconds of sound, each in a process of its own: time and memory against length."""
    jobs: Annotated[tuple[int, ...], optional("N ...")] = ()
    """Also render so many videos at once, in threads and in processes."""
    preset: Preset = "balanced"
    """Speed against quality: 1, 2 or 4 steps; 1, 2 or 8 with the other methods."""
    steps: Annotated[int | None, optional("N")] = None
    """Network evaluations a frame, instead of the preset's. 1 to 64."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 512
    """Longest side of the output. 64 to 8192."""
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command; 128 + the signal when it was interrupted and shows what was measured until then."""
    options = read(Bench, "bench", args, ALIASES)
    plan = make_plan(options)

    from atldiff.bench.machine import describe
    from atldiff.bench.report import as_dict
    from atldiff.bench.run import Results, measure
    from atldiff.machine import revision

    machine, results = describe(), Results()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="atldiff-bench-") as folder,
            Progress("measuring", quiet=options.report.quiet) as progress,
        ):
            measure(plan, Path(folder), results, progress)
    except KeyboardInterrupt:
        if results.empty:
            raise
    result = as_dict(plan, results, machine, revision(), shlex.join(["atldiff", "bench", *args]))
    if options.report.json:
        write_json(result)
    else:
        from atldiff.bench.tables import show

        show(result, console())
    return interrupt.exit_code() if results.interrupted else 0


def make_plan(options: Bench) -> Plan:
    """Check the options and return what is to be measured.

    Raises:
        ValueError, MediaError: a value out of range, an unknown option to compare, or a file that is not there.
    """
    _within("seconds", options.seconds, 1, MOST_SECONDS)
    _within("runs", options.runs, 1, MOST_RUNS)
    for seconds in options.lengths:
        _within("lengths", seconds, 1, MOST_SECONDS)
    for jobs in options.jobs:
        _within("jobs", jobs, 1, MOST_JOBS)
    _check_variant(options.steps, options.size)
    portrait, audio = _inputs(options)

    from atldiff.bench.plan import Plan, Variant

    base = Variant(
        checkpoint=options.model.checkpoint,
        generator=options.model.generator,
        renderer=options.model.renderer,
        device=options.model.device,
        dtype=options.model.dtype,
        backend=options.model.backend,
        preset=options.preset,
        steps=options.steps,
        size=options.size,
    )
    variants = [base, *(change(base, text) for text in options.compare)]
    for index, variant in enumerate(variants):
        twin = next((other for other in variants[:index] if replace(other, name=variant.name) == variant), None)
        if twin is not None:
            raise ValueError(f"compare: got {variant.name!r}, which is what {twin.name} is, expected something else")
    return Plan(
        variants=tuple(variants),
        portrait=portrait,
        audio=audio,
        seconds=options.seconds,
        runs=options.runs,
        lengths=options.lengths,
        jobs=options.jobs,
    )


def change(base: Variant, text: str) -> Variant:
    """Return the base with the changes of a text such as `backend=openvino,preset=fast`, which is its name.

    The options are those of `ModelOptions` and `RenderOptions`. A preset brings its own steps along.

    Raises:
        ValueError: an unknown option, or a value that it does not take.
    """
    kinds = {**get_type_hints(ModelOptions), **get_type_hints(RenderOptions)}
    changes: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        key = key.replace("-", "_")
        if key not in kinds:
            raise ValueError(f"compare: got {key!r} in {text!r}; {closest(key, kinds)}")
        if not equals or not value:
            raise ValueError(f"compare: got {part!r}, expected {key}=VALUE")
        choices = get_args(kinds[key]) if get_origin(kinds[key]) is Literal else ()
        if choices and value not in choices:
            raise ValueError(f"compare: got {key} {value!r} in {text!r}; {closest(value, choices)}")
        name = "checkpoint" if key in ("method", "weights") else key
        if name in changes:
            raise ValueError(f"compare: got {name} twice in {text!r}, expected it once")
        changes[name] = _number(key, value) if key in ("steps", "size") else value
    if "preset" in changes:
        changes.setdefault("steps", None)
    _check_variant(changes.get("steps"), changes.get("size"))
    return replace(base, name=text, **changes)


def _inputs(options: Bench) -> tuple[Path, Path | None]:
    """Return the portrait and the sound, of the bundled example where none is given; None for made-up sound."""
    if options.portrait is None:
        from atldiff.errors import MediaError
        from atldiff.files import demo_portrait

        portrait = demo_portrait()
        if portrait is None:
            raise MediaError("bench: the bundled portrait is missing: name one, or reinstall atldiff")
        speech = portrait.with_name("speech.wav")  # in a checkout; a wheel has only the portrait
        return portrait, speech if speech.is_file() else None
    if options.audio is None:
        raise ValueError(f"bench: got the portrait {options.portrait} without a recording, expected both or neither")
    door.check_input(options.portrait, "portrait")
    door.check_input(options.audio, "audio")
    return options.portrait, options.audio


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value:g}, expected {low:g} to {high:g}")


def _check_variant(steps: int | None, size: int | None) -> None:
    if steps is not None:
        SampleConfig(steps=steps)
    if size is not None:
        _within("size", size, *SIZES)


def _number(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"compare: got {key} {text!r}, expected a whole number") from None
