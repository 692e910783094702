"""`atldiff train`: one stage, from a preset or a JSON file that changes one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff.commands.options import ReportOptions, closest, optional, read
from atldiff.commands.progress import Progress, say, write_json
from atldiff.config import (
    TRAIN_PRESETS,
    DiffTalkerConfig,
    LMDiffConfig,
    TrainConfig,
    from_dict,
    model_presets,
    to_dict,
)
from atldiff.errors import DataError
from atldiff.interrupt import patience

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, MethodConfig
    from atldiff.data.manifest import Manifest

SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True)
class Train:
    """Train landmark generator, renderer, codec or sync expert, or the former two jointly; again, to resume a run.

    On several processes: `torchrun --nproc-per-node 2 -m atldiff train ...`, or `accelerate launch --multi_gpu
    --num_processes 2 -m atldiff train ...`; with --device cpu also where there is no GPU.
    """

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|FILE.json")]
    """Of atl-diff landmarks, the renderer mouth and then mouth-adversarial, mouth-small (half the scale, for footage
    with small mouths), renderer (the same, one layer); of atl-diff-paper paper-landmarks and paper-renderer; of
    difftalker difftalker-codec, difftalker-landmarks, and the renderers difftalker and difftalker-sd; of lmdiff, over a
    codec of difftalker's, lmdiff-landmarks, the renderer lmdiff, lmdiff-sync, and lmdiff-joint; names with -window are
    of one layer, those with -mel hear log-mel columns alone; of all methods the motion of head, brows and blinks;
    debug; or a JSON file such as {"preset": "renderer", "steps": 100}, {"preset": "lmdiff-window", "model": {"preset":
    "paper"}}, or, over weights of lmdiff-sync, {"preset": "lmdiff-window-joint", "frames": 5, "model": {"joint":
    {"sync_weight": 0.1}}}."""
    data: Annotated[Path, tyro.conf.arg(metavar="PREPARED")]
    """Folder made by `atldiff prepare`, or the word synthetic for a small made-up data set."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="RUN")]
    """Folder of the run: its state, its curves and its checkpoint."""
    weights: Annotated[str | None, optional("NAME|FOLDER")] = None
    """Checkpoint to start from; its other stage is carried along."""
    base: Annotated[str | None, optional("HUB_ID|FOLDER")] = None
    """Stable Diffusion 1.x that difftalker-sd stands on, instead of the preset's."""
    codec: Annotated[str | None, optional("HUB_ID|FOLDER")] = None
    """Autoencoder of diffusers (AutoencoderKL or AutoencoderTiny) under difftalker's or lmdiff's renderer, instead of
    the preset's codec. The window grows to the next side that its latents divide."""
    lpips: Annotated[str | None, optional("FILE|HUB_FILE")] = None
    """AlexNet of LPIPS, for the presets that ask for mouths that look real."""
    steps: Annotated[int | None, optional("N")] = None
    """Steps of the whole run, instead of the preset's."""
    minutes: Annotated[float | None, optional("M")] = None
    """Stop, with a saved state, after this long."""
    workers: int = 1
    """Processes that make batches beside the training, or beside each process of it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks are trained; auto takes a GPU where there is one."""
    accumulate: Annotated[int | None, optional("N")] = None
    """Parts in which a process works through its clips of a step, for less memory, instead of the preset's."""
    seed: Annotated[int | None, optional("N")] = None
    """Seed of weights, data order and noise, instead of the preset's."""
    learning_rate: Annotated[float | None, optional("X")] = None
    """Peak learning rate, instead of the preset's."""
    clips_per_batch: Annotated[int | None, optional("N")] = None
    """Clips a step, instead of the preset's."""
    dry_run: bool = False
    """Show the configuration and the sizes of model and data as JSON, and stop."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Train, "train", args)
    config = _overridden(load_config(options.config), options)
    if options.workers < 0:
        raise ValueError(f"workers: got {options.workers}, expected 0 or more")
    if options.minutes is not None and not options.minutes > 0:
        raise ValueError(f"minutes: got {options.minutes}, expected more than 0")
    if options.out.exists() and not options.out.is_dir():
        raise DataError(f"out {options.out}: got a file, expected the folder of a run")
    if options.base is not None:
        config = _with_base(config, options.base)
    if options.codec is not None:
        config = _with_codec(config, options.codec)

    from atldiff.data.manifest import Manifest

    manifest = None if str(options.data) == SYNTHETIC else Manifest.load(options.data)
    if options.weights is not None:
        from atldiff.checkpoint import locate

        locate(options.weights)
    if options.dry_run:
        write_json({"config": asdict(config), **_sizes(config, manifest)})
        return 0

    network = None
    if config.perceptual_weight:
        if options.lpips is None:
            raise ValueError(
                f"lpips: {options.config} compares mouths by the features of LPIPS; expected --lpips FILE, the AlexNet "
                'of LPIPS v0.1 (see atldiff evaluate --help), or a configuration of {"perceptual_weight": 0}'
            )
        from atldiff.backbones import alexnet

        network = alexnet.load(options.lpips)
    with patience():
        from atldiff.training.processes import join_processes
        from atldiff.training.run import CHECKPOINT_FOLDER, train_stage

        processes = join_processes(options.device)
        quiet = options.report.quiet or not processes.is_main
        with Progress("training", quiet=quiet) as progress:
            done = train_stage(
                config,
                options.data,
                options.out,
                start=options.weights,
                network=network,
                processes=processes,
                workers=options.workers,
                minutes=options.minutes,
                progress=lambda step, total, losses: progress(step, total, f"loss {losses['loss']:.4f}"),
            )
    checkpoint = options.out / CHECKPOINT_FOLDER
    if not processes.is_main:
        processes.leave()
        return 0
    if options.report.json:
        write_json({"out": str(options.out), "checkpoint": str(checkpoint), "steps": done, "of": config.steps})
    else:
        more = "" if done >= config.steps else "; the same command goes on"
        say(f"{checkpoint}: {done} of {config.steps} steps{more}", quiet=quiet)
    processes.leave()
    return 0


def load_config(name: str) -> TrainConfig:
    """Return a preset, or a preset with the fields that a JSON file changes.

    Raises:
        ValueError: an unknown preset or field, a value of a wrong type or out of range, or not such a file.
    """
    if not name.endswith(".json"):
        if name not in TRAIN_PRESETS:
            raise ValueError(f"preset: got {name!r}; {closest(name, TRAIN_PRESETS)} (or a file ending in .json)")
        return TRAIN_PRESETS[name]
    try:
        values = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {name}: {error.strerror}; expected a preset or a JSON file") from None
    except ValueError as error:
        raise ValueError(f"config {name}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"config {name}: got {type(values).__name__}, expected an object")
    preset = values.pop("preset", None)
    if not isinstance(preset, str) or preset not in TRAIN_PRESETS:
        raise ValueError(f"config {name}: preset: got {preset!r}; {closest(str(preset), TRAIN_PRESETS)}")
    return _changed(TRAIN_PRESETS[preset], values, name)


def _changed(preset: TrainConfig, values: dict[str, Any], name: str) -> TrainConfig:
    known = {f.name: getattr(preset, f.name) for f in fields(preset)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"config {name}: unknown field {key!r}; {closest(key, known)}")
        changes[key] = (
            _changed_model(preset.model, value, name) if key == "model" else _typed(value, known[key], f"{name}: {key}")
        )
    return replace(preset, **changes)


def _changed_model(model: MethodConfig, values: object, name: str) -> MethodConfig:
    """Return the architecture with the fields that were given; `from_dict` names what is wrong.

    Its `preset` names one of the method's to start from, where it is not to be the training's own.
    """
    if not isinstance(values, dict):
        raise ValueError(f"config {name}: model: got {type(values).__name__}, expected an object")
    values = dict(values)
    if (preset := values.pop("preset", None)) is not None:
        presets = model_presets(model)
        if not isinstance(preset, str) or preset not in presets:
            raise ValueError(f"config {name}: model: preset: got {preset!r}; {closest(str(preset), presets)}")
        model = presets[preset]
    whole = to_dict(model)
    for part, changes in values.items():
        known = whole.get(part)
        if not isinstance(known, dict) or not isinstance(changes, dict):
            raise ValueError(
                f"config {name}: model: unknown part {part!r}; expected such as generator or renderer, an object each"
            )
        whole[part] = _merged(known, changes)
    return from_dict(whole)


def _merged(known: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return fields with changes; an object within changes the fields it names of the one it meets."""
    return known | {
        name: _merged(known[name], value) if isinstance(known.get(name), dict) and isinstance(value, dict) else value
        for name, value in changes.items()
    }


def _typed(value: object, default: object, where: str) -> Any:
    """Return a JSON value as the type its default has."""
    if isinstance(default, tuple):
        if isinstance(value, list):
            return tuple(value)
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif type(value) is type(default):
        return value
    kind = "list" if isinstance(default, tuple) else type(default).__name__
    raise ValueError(f"config {where}: got {value!r}, expected a {kind}")


def _overridden(config: TrainConfig, options: Train) -> TrainConfig:
    given = {
        name: getattr(options, name)
        for name in ("steps", "seed", "learning_rate", "clips_per_batch", "accumulate")
        if getattr(options, name) is not None
    }
    return replace(config, **given)


def _with_base(config: TrainConfig, base: str) -> TrainConfig:
    """Return a configuration on another Stable Diffusion, its autoencoder included where that is one of diffusers."""
    model = config.model
    if not isinstance(model, DiffTalkerConfig) or model.renderer.backend != "stable-diffusion":
        raise ValueError(
            f"base: got {base!r} for a renderer that stands on no Stable Diffusion; expected the preset difftalker-sd, "
            "or leave --base out"
        )
    from atldiff.diffusion.pretrained_files import predicts

    base, renderer = _source(base), model.renderer
    codec = replace(renderer.codec, source=base) if renderer.codec.kind == "diffusers" else renderer.codec
    schedule = replace(renderer.schedule, prediction=predicts(base))
    return _with_renderer(config, model, base=base, codec=codec, schedule=schedule)


def _with_codec(config: TrainConfig, source: str) -> TrainConfig:
    """Return a configuration over another autoencoder, whose config.json says the shape of its latents."""
    model = config.model
    if not isinstance(model, DiffTalkerConfig | LMDiffConfig) or config.stage == "codec":
        raise ValueError(
            f"codec: got {source!r} for a renderer on pixels, or the stage that trains a codec of ours; expected the "
            "preset difftalker or difftalker-sd, or lmdiff, or leave --codec out"
        )
    from atldiff.diffusion.pretrained_files import codec_config

    codec = codec_config(_source(source))
    step = codec.factor * 2 ** (len(model.renderer.widths) - 1)
    return _with_renderer(config, model, codec=codec, **_window_of(model.renderer, step))


def _window_of(renderer: LatentDiffusionConfig, step: int) -> dict[str, Any]:
    """Return what changes of a renderer's window for it to be a multiple of `step` pixels.

    A square one is enlarged; a layered one, which is as large as `prepare` keeps pictures, takes in more around it.
    """
    before = (renderer.resolution, renderer.height or renderer.resolution)
    width, height = (-(-length // step) * step for length in before)
    if not renderer.layered:
        return {"resolution": width}
    scale, (x, y) = renderer.resolution / renderer.side, renderer.origin
    origin = (x - round((width - before[0]) / scale / 2), y - round((height - before[1]) / scale / 2))
    return {"resolution": width, "height": height, "side": round(width / scale), "origin": origin}


def _with_renderer(config: TrainConfig, model: DiffTalkerConfig | LMDiffConfig, **changes: Any) -> TrainConfig:
    return replace(config, model=replace(model, renderer=replace(model.renderer, **changes)))


def _source(name: str) -> str:
    """Return a folder as a checkpoint can name it, wherever it is loaded from; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _sizes(config: TrainConfig, manifest: Manifest | None) -> dict[str, Any]:
    from atldiff.diffusion.pretrained import Borrowing
    from atldiff.methods.difftalker.network import DiffTalkerModel
    from atldiff.methods.lmdiff.network import LMDiffModel
    from atldiff.methods.models import build

    if config.stage == "motion":
        from atldiff.training.motion_network import MotionNetwork

        parts: dict[str, Any] = {"motion": MotionNetwork()}
        model = None
    else:
        model = build(config.model)
        parts = {"generator": model.generator, "renderer": model.renderer}
    if isinstance(model, LMDiffModel) and model.expert is not None:
        parts["expert"] = model.expert
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    if isinstance(model, DiffTalkerModel | LMDiffModel):
        counts["codec"] = sum(p.numel() for p in model.renderer.codec.parameters())
        counts["renderer"] -= counts["codec"]
        borrowed = (part.borrowed for part in model.modules() if isinstance(part, Borrowing))
        counts["pretrained"] = sum(p.numel() for network in borrowed for p in network.parameters())
    sizes: dict[str, Any] = {"parameters": counts}
    if manifest is not None:
        from atldiff.data.manifest import Split

        sizes["clips"] = {split.value: len(manifest.usable(split)) for split in Split if split is not Split.NONE}
    return sizes
