"""`atldiff ablate`: the published prior and noise against ours, trained alike and measured on held-out people."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from atldiff.commands.options import ReportOptions, optional, read
from atldiff.commands.progress import Progress, say, write_json
from atldiff.commands.train import SYNTHETIC, load_config
from atldiff.errors import DataError
from atldiff.interrupt import patience


@dataclass(frozen=True, slots=True)
class Ablate:
    """Measure the published prior and noise against ours. The same command goes on where it was stopped.

    The published renderer is trained four times, from the unmoved or the landmark-warped identity, with guided or
    uniform noise, all else alike, and measured at 1, 2, 4 and 8 steps on held-out people.

    RUN gets ablation.md (the table), ablation.json (every figure) and ablation.png (pictures).
    """

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PREPARED")]
    """Folder made by `atldiff prepare`, or the word synthetic for a small made-up data set."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="RUN")]
    """Folder of the ablation: a training run for each arm, and the results."""
    config: Annotated[str, tyro.conf.arg(metavar="PRESET|FILE.json")] = "paper-renderer"
    """The training that the arms share: a preset of `atldiff train`, or a JSON file that changes one."""
    steps: Annotated[int | None, optional("N")] = None
    """Training steps of each arm, instead of the preset's."""
    seed: Annotated[int | None, optional("N")] = None
    """Seed of weights, data order and noise, instead of the preset's."""
    split: Literal["val", "test"] = "test"
    """Whose clips are measured."""
    clips: Annotated[int | None, optional("N")] = None
    """At most this many clips, evenly spread. All when left out."""
    workers: int = 1
    """Processes that make batches beside the training."""
    minutes: Annotated[float | None, optional("M")] = None
    """Stop training, with a saved state, after this long."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks are trained and run; auto takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Number format that the renderers are measured in; auto takes bfloat16 where the hardware has it."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Ablate, "ablate", args)
    given = {name: value for name in ("steps", "seed") if (value := getattr(options, name)) is not None}
    base = replace(load_config(options.config), **given)
    if options.workers < 0:
        raise ValueError(f"workers: got {options.workers}, expected 0 or more")
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"minutes: got {options.minutes}, expected more than 0")
    if options.clips is not None and options.clips < 1:
        raise ValueError(f"clips: got {options.clips}, expected at least 1")
    if options.out.exists() and not options.out.is_dir():
        raise DataError(f"out {options.out}: got a file, expected the folder of an ablation")

    from atldiff.data.manifest import Manifest

    if str(options.data) != SYNTHETIC:
        Manifest.load(options.data)  # before torch, which the next imports bring along

    with patience():
        from atldiff.ablation.run import DOCUMENT, SHEET, TABLE, ablate
        from atldiff.training.processes import join_processes

        processes = join_processes(options.device)
        quiet = options.report.quiet or not processes.is_main
        with _Stages(quiet=quiet) as progress:
            outcome = ablate(
                options.data,
                options.out,
                base=base,
                split=options.split,
                clips=options.clips,
                processes=processes,
                workers=options.workers,
                minutes=options.minutes,
                dtype=options.dtype,
                command=f"atldiff ablate {shlex.join(args)}",
                progress=progress,
            )
    if not processes.is_main:
        return 0
    document = outcome.document
    done = {"out": str(options.out), "steps": outcome.steps, "of": base.steps}
    if options.report.json:
        found = None if document is None else {name: document[name] for name in ("rows", "summary")}
        write_json({**done, "clips": 0 if document is None else len(document["clips"]), "found": found})
    elif document is None:
        trained = ", ".join(f"{name} {count}" for name, count in outcome.steps.items())
        say(f"{options.out}: stopped at {trained} of {base.steps} steps; the same command goes on", quiet=quiet)
    else:
        files = ", ".join((TABLE, DOCUMENT, SHEET))
        say(f"{options.out}: {len(document['clips'])} clips measured; see {files}", quiet=quiet)
    return 0


class _Stages:
    """Progress of one stage after the other: a bar each, under the stage's name."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._stage, self._progress = quiet, "", Progress("", quiet=True)

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__(*exception)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` of a stage are done."""
        if stage != self._stage:
            self._progress.__exit__(None, None, None)
            self._stage, self._progress = stage, Progress(stage, quiet=self._quiet)
        self._progress(done, total, note)
