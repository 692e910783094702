"""`atldiff evaluate`: a checkpoint on people it was not trained on, or any videos against real ones, by one ruler."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff import interrupt
from atldiff.commands import door
from atldiff.commands.options import EmbedderName, LogOptions, RenderOptions, optional, read
from atldiff.commands.progress import Progress, say
from atldiff.errors import DataError
from atldiff.files import write_text

if TYPE_CHECKING:
    from atldiff.evaluation.pictures import Backbones
    from atldiff.evaluation.run import Measured

PREPARED_DEFAULT = "runs/prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneOptions:
    """Networks of others that some measures need. Without its file a measure is listed as skipped."""

    lpips: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """AlexNet of torchvision (alexnet-owt-7be5be79.pth), for LPIPS."""
    inception: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """Inception-v3 of 2015 (pt_inception-2015-12-05-6726825d.pth), for FID."""
    syncnet: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """SyncNet (syncnet_v2.model), for LSE-D, LSE-C and its offset."""
    embedder: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """A face embedder (.onnx; .pb with OpenCV 5.0), for identity."""
    embedder_kind: EmbedderName = "sface"
    """How that embedder wants its faces cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Measure a checkpoint on a split (--checkpoint, --data), or videos against real ones (--generated, --real).

    The clips of a checkpoint are self-driven: each real clip's first face speaks the clip's own sound.
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER|HUB_ID")] = "atl-diff"
    """A bundled name, a checkpoint folder or a hub id."""
    generator: Annotated[str | None, optional("NAME|FOLDER|HUB_ID")] = None
    """Measure this checkpoint's landmark generator instead of --checkpoint's."""
    renderer: Annotated[str | None, optional("NAME|FOLDER|HUB_ID")] = None
    """Measure this checkpoint's renderer instead of --checkpoint's."""
    data: Annotated[Path, tyro.conf.arg(metavar="PREPARED")] = Path(PREPARED_DEFAULT)
    """Folder made by `atldiff prepare`."""
    split: Literal["test", "val", "train"] = "test"
    """Which people: test and val were held out."""
    source: Annotated[Path | None, optional("FOLDER")] = None
    """The raw videos that were prepared, where they are not at their old place."""
    generated: Annotated[Path | None, optional("FOLDER|VIDEO")] = None
    """Videos of any system, to measure instead of a checkpoint."""
    real: Annotated[Path | None, optional("FOLDER|VIDEO")] = None
    """The real videos, of the same names."""
    driving: Literal["self", "cross"] = "self"
    """self: frame by frame the real one's moments. cross: another sound; no measure compares moments."""
    co_driven: bool = False
    """Let each real clip move head, eyes and brows of the checkpoint's video, as `generate --driving-video` does."""
    name: Annotated[str | None, optional("TEXT")] = None
    """What the row under the ruler is called. The checkpoint's or the folder's name when left out."""
    clips: Annotated[int | None, optional("N")] = None
    """Measure this many clips of the split, evenly spread."""
    json: Annotated[Path | None, optional("FILE.json")] = None
    """Write the report, for `atldiff report`."""
    html: Annotated[Path | None, optional("FILE.html")] = None
    """Write the report as one self-contained page, worst clips first."""
    gallery: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Clips that the page shows with pictures and video."""
    videos: Annotated[Path | None, optional("FOLDER")] = None
    """Keep the rendered videos of a checkpoint here."""
    seed: int = 0
    """Seed of blinks, head motion, noise and the intervals."""
    rendering: RenderOptions = field(default_factory=RenderOptions)
    backbones: BackboneOptions = field(default_factory=BackboneOptions)
    report: LogOptions = field(default_factory=LogOptions)


def run(args: list[str]) -> int:
    """Run the sub-command; 128 + the signal when it was interrupted and reports the clips measured until then."""
    options = read(Evaluate, "evaluate", args)
    _check(options)
    command = shlex.join(["atldiff", "evaluate", *args])
    if options.generated is None:
        from atldiff.data.manifest import Manifest

        Manifest.load(options.data)  # before torch, which the next import brings along

    from atldiff.commands.report import show_evaluation
    from atldiff.evaluation import report
    from atldiff.evaluation.result import assemble

    backbones = _open(options.backbones)
    keep = nullcontext(str(options.videos)) if options.videos else tempfile.TemporaryDirectory(prefix="atldiff-")
    with keep as folder:
        if options.generated is None:
            measured, config, cost = _measure_checkpoint(options, backbones, Path(folder))
        else:
            measured, config, cost = _measure_folders(options, backbones)
        if not measured.clips:
            raise DataError(f"evaluation: none of {len(measured.failed)} clips could be measured: {_first(measured)}")
        result = assemble(
            measured,
            backbones,
            config={**config, **_settings(options)},
            command=command,
            seed=options.seed,
            paired=options.driving == "self",
            cost=cost,
        )
        if options.json is not None:
            report.save(result, options.json)
        if options.html is not None:
            _write_page(result, measured, options)
    show_evaluation(result)
    return interrupt.exit_code() if measured.interrupted else 0


def _check(options: Evaluate) -> None:
    if (options.generated is None) != (options.real is None):
        given, missing = ("--generated", "--real") if options.real is None else ("--real", "--generated")
        raise DataError(f"evaluate: got {given} without {missing}, expected both: the videos and what they imitate")
    if options.generated is None and options.driving == "cross":
        raise DataError("driving: got cross for a checkpoint, expected self; render the videos and use --generated")
    if options.generated is not None and options.co_driven:
        raise DataError("co_driven: got it with --generated, expected a checkpoint, whose videos are made here")
    for name, value in (("clips", options.clips), ("gallery", options.gallery + 1)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed: got {options.seed}, expected 0 to 4294967295")
    for path, suffix in ((options.json, ".json"), (options.html, ".html")):
        if path is not None:
            door.check_file_target(path, suffix)
    if options.videos is not None:
        if options.videos.exists() and not options.videos.is_dir():
            raise DataError(f"videos {options.videos}: got a file, expected a folder")
        options.videos.mkdir(parents=True, exist_ok=True)


def _open(options: BackboneOptions) -> Backbones:
    from atldiff.backbones import alexnet, embedder, inception, syncnet
    from atldiff.evaluation.pictures import Backbones

    return Backbones(
        lpips=alexnet.load(options.lpips) if options.lpips else None,
        inception=inception.load(options.inception) if options.inception else None,
        syncnet=syncnet.load(options.syncnet) if options.syncnet else None,
        embedder=embedder.load(options.embedder, embedder.KINDS[options.embedder_kind]) if options.embedder else None,
    )


def _measure_checkpoint(
    options: Evaluate, backbones: Backbones, videos: Path
) -> tuple[Measured, dict[str, Any], dict[str, float]]:
    from atldiff.checkpoint import locate_stages, read_config
    from atldiff.config import sampling_presets
    from atldiff.data.manifest import source_of
    from atldiff.evaluation.cost import cold_start
    from atldiff.evaluation.protocol import GROUND_TRUTH
    from atldiff.evaluation.run import measure_checkpoint
    from atldiff.types import Controls

    source = options.source or source_of(options.data)
    _, renders = locate_stages(options.checkpoint, options.generator, options.renderer)
    presets = sampling_presets(read_config(renders).renderer)
    sampling = options.rendering.sampling(presets.__getitem__)
    with Progress("evaluating", quiet=options.report.quiet) as progress:
        measured = measure_checkpoint(
            options.checkpoint,
            options.data,
            options.split,
            source,
            videos,
            backbones,
            name=options.name or _row_name(options),
            generator=options.generator,
            renderer=options.renderer,
            controls=Controls(seed=options.seed),
            sampling=sampling,
            co_driven=options.co_driven,
            size=options.rendering.size,
            most_clips=options.clips,
            progress=progress,
        )
    config = {
        "mode": "checkpoint",
        "checkpoint": options.checkpoint,
        "generator": options.generator,
        "renderer": options.renderer,
        "data": str(options.data),
        "source": str(source),
        "split": options.split,
        "held_out": _held_out(options),
        "preset": options.rendering.preset,
        "steps": sampling.steps,
        "co_driven": options.co_driven,
        "size": options.rendering.size,
    }
    cost: dict[str, float] = {"parameters": float(measured.parameters or 0)}
    if measured.clips and not measured.interrupted:
        longest = max(measured.clips, key=lambda clip: clip["frames"])
        clip = measured.sights[longest["name"]][GROUND_TRUTH].path
        try:
            cost |= cold_start(_weights(options), clip, options.rendering.preset, sampling.steps)
        except DataError as error:  # the figures of the clips are worth more than that of the start
            say(f"atldiff: warning: {error}", quiet=options.report.quiet)
        except KeyboardInterrupt:
            measured.interrupted = True
    return measured, config, cost


def _held_out(options: Evaluate) -> str:
    """Return what the measured split was held out by: whole people, or clips of people who are trained on."""
    from atldiff.data.manifest import Manifest, Split

    if options.split == Split.TRAIN.value:
        return "nothing"
    manifest = Manifest.load(options.data)
    trained = {entry.identity for entry in manifest.usable(Split.TRAIN)}
    return "clips" if any(entry.identity in trained for entry in manifest.usable(Split(options.split))) else "people"


def _weights(options: Evaluate) -> list[str]:
    """Return the options of `atldiff generate` that name the weights under the ruler."""
    named = {"--weights": options.checkpoint, "--generator": options.generator, "--renderer": options.renderer}
    return [word for option, value in named.items() if value for word in (option, value)]


def _row_name(options: Evaluate) -> str:
    stages = [Path(stage or options.checkpoint).name for stage in (options.generator, options.renderer)]
    return stages[0] if stages[0] == stages[1] else " + ".join(stages)


def _measure_folders(options: Evaluate, backbones: Backbones) -> tuple[Measured, dict[str, Any], dict[str, float]]:
    from atldiff.evaluation.run import find_pairs, measure_folders

    assert options.generated is not None  # noqa: S101 - for the type checker: _check has seen to both
    assert options.real is not None  # noqa: S101
    pairs, lone = find_pairs(options.generated, options.real)
    with Progress("evaluating", quiet=options.report.quiet) as progress:
        measured = measure_folders(
            pairs,
            backbones,
            name=options.name or options.generated.resolve().stem,
            paired=options.driving == "self",
            progress=progress,
        )
    measured.failed += lone
    return measured, {"mode": "videos", "generated": str(options.generated), "real": str(options.real)}, {}


def _settings(options: Evaluate) -> dict[str, Any]:
    from atldiff.evaluation.protocol import CROP

    given = asdict(options.backbones)
    kind = given.pop("embedder_kind")
    networks = {name: Path(source).name for name, source in given.items() if source}
    if "embedder" in networks:
        networks["embedder_kind"] = kind
    return {"driving": options.driving, "crop": CROP, "backbones": networks}


def _write_page(result: dict[str, Any], measured: Measured, options: Evaluate) -> None:
    from atldiff.evaluation.gallery import show
    from atldiff.evaluation.page import render_page
    from atldiff.evaluation.protocol import GROUND_TRUTH
    from atldiff.evaluation.report import worst_first

    assert options.html is not None  # noqa: S101 - for the type checker
    row = measured.main_row
    worst = worst_first(result)[: options.gallery]
    items = []
    with Progress("writing the page", quiet=options.report.quiet) as progress:
        for index, clip in enumerate(worst):
            progress(index, len(worst), clip["name"])
            sights = measured.sights[clip["name"]]
            items.append(show(clip["name"], row, sights[GROUND_TRUTH], sights[row], "real above, generated below"))
    write_text(options.html, render_page(result, items))
    say(f"The page: {options.html}", quiet=options.report.quiet)


def _first(measured: Measured) -> str:
    return measured.failed[0]["reason"] if measured.failed else "no clip"
