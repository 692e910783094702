"""One call trains one stage: data, model, loop, and a checkpoint that `TalkingHead.from_pretrained` loads."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from atldiff import checkpoint
from atldiff.config import ATLConfig, DiffTalkerConfig, LatentDiffusionConfig, LMDiffConfig, PublishedConfig, method_of
from atldiff.data.hold_out import why_empty
from atldiff.data.manifest import Manifest, Split
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import CheckpointError
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl.training.renderer_task import renderer_task
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.methods.atl_published.training.kflm_task import kflm_task
from atldiff.methods.atl_published.training.renderer_task import paper_renderer_task
from atldiff.methods.difftalker.network import DiffTalkerModel
from atldiff.methods.lmdiff.network import LMDiffModel
from atldiff.methods.lmdiff.training.joint_task import joint_task
from atldiff.methods.lmdiff.training.sync_task import sync_task
from atldiff.methods.models import build
from atldiff.training.alignment import align
from atldiff.training.codec_task import codec_task
from atldiff.training.completion_task import completion_task
from atldiff.training.landmarks_task import landmarks_task
from atldiff.training.latent_renderer_task import latent_renderer_task
from atldiff.training.loop import train
from atldiff.training.motion_task import motion_task, save_motion
from atldiff.training.mouth_task import mouth_task
from atldiff.training.processes import ALONE

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torch import nn

    from atldiff.backbones.alexnet import LpipsAlexNet
    from atldiff.config import MethodConfig, RendererOptions, SyncConfig, TrainConfig
    from atldiff.methods.models import Model
    from atldiff.training.processes import Processes
    from atldiff.training.task import Task

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"

LatentConfigT = TypeVar("LatentConfigT", bound=LatentDiffusionConfig)


def open_data(data: Path, run: Path) -> Manifest:
    """Open a prepared folder; the word `synthetic` makes a small one inside the run's folder."""
    if str(data) == "synthetic":
        folder = run / "synthetic"
        if not (folder / "manifest.jsonl").exists():
            make_synthetic(folder)
        return Manifest.load(folder)
    return Manifest.load(data)


def train_stage(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    start: str | os.PathLike[str] | None = None,
    network: LpipsAlexNet | None = None,
    processes: Processes = ALONE,
    workers: int = 1,
    stop_after: int | None = None,
    minutes: float | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> int:
    """Train a stage into `out` and return the steps done; the same call resumes it.

    start: checkpoint whose weights the run starts from and whose other stage is carried along. `out/checkpoint` holds
    the averaged weights of the last save. network: of LPIPS, for a configuration that weighs it. processes: from
    `join_processes`, which also chooses the device; every process makes this call, and their number and device may be
    others when the run is resumed.

    Raises:
        DataError, CheckpointError, TrainingError: see their rooms.
        ValueError: the batch cannot be cut into equal parts.
    """
    processes.shares(config.clips_per_batch, config.accumulate)  # before the data, which take long to read
    out.mkdir(parents=True, exist_ok=True)
    with processes.main_first():
        manifest = open_data(data, out)
    if processes.is_main and manifest.usable(Split.TRAIN) and not manifest.usable(Split.VAL):
        logger.warning("no clip to validate on, so only training losses are told: %s", why_empty(manifest))
    source = None if start is None else checkpoint.locate(start)
    torch.manual_seed(config.seed)
    if config.stage == "motion":
        if source is not None:
            raise CheckpointError(
                f"weights {start}: got them for the stage motion, which starts afresh; leave them out"
            )
        task = motion_task(manifest, config, lambda weights: save_motion(weights, out / CHECKPOINT_FOLDER))
        task.module.to(processes.device)
        return train(
            task, config, out,
            processes=processes, workers=workers, stop_after=stop_after, minutes=minutes, progress=progress,
        )  # fmt: skip
    config = replace(config, model=_architecture(config, manifest, source))
    model = build(config.model)
    if source is not None:
        checkpoint.load_into(model, source, parts=_carried(config, source))
        if _grows(config, source):
            checkpoint.grow_into(model, source, "renderer.")
    model.to(processes.device)

    def write(module: nn.Module) -> None:
        checkpoint.save_model(model, out / CHECKPOINT_FOLDER)
        checkpoint.carry_motion(None if source is None else checkpoint.motion_of(source), out / CHECKPOINT_FOLDER)

    task = _task(model, manifest, config, write, None if network is None else network.to(processes.device))
    return train(
        task, config, out,
        processes=processes, workers=workers, stop_after=stop_after, minutes=minutes, progress=progress,
    )  # fmt: skip


def _architecture(config: TrainConfig, manifest: Manifest, start: Path | None) -> MethodConfig:
    """Return what is built: the parts that this stage does not train as `start` has them, and only known emotions.

    Where no clip has a label there are none, but a part that is trained further keeps those it knows.
    """
    model = config.model
    if isinstance(model, LMDiffConfig) and config.stage != "sync":  # its stage alone makes an expert
        expert = None if start is None else _expert(checkpoint.read_config(start))
        model = replace(model, joint=replace(model.joint, sync=expert))
    own, other = ("generator", "renderer") if config.stage == "landmarks" else ("renderer", "generator")
    known = {own: 0, other: 0}
    if start is not None:
        theirs = checkpoint.read_config(start)
        if isinstance(model, LMDiffConfig) and isinstance(theirs, DiffTalkerConfig):
            if config.stage != "landmarks":  # both complete landmarks by the same network
                model = replace(model, generator=theirs.generator)
            return replace(model, renderer=_over_their_codec(model.renderer, theirs.renderer))
        if type(theirs) is not type(model):
            raise CheckpointError(
                f"checkpoint {start}: got method {method_of(theirs)}, expected {method_of(model)}, as the configuration"
            )
        model = replace(model, **{other: getattr(theirs, other)})
        if config.stage in ("joint", "sync"):
            model = replace(model, **{own: getattr(theirs, own)})
        if config.stage == "renderer" and isinstance(model, DiffTalkerConfig | LMDiffConfig):
            model = replace(model, renderer=_over_their_codec(model.renderer, theirs.renderer))
        known = {part: getattr(getattr(theirs, part), "emotions", 0) for part in known}
    if isinstance(model, PublishedConfig) and not any(entry.record.emotion for entry in manifest.usable(Split.TRAIN)):
        model = replace(
            model,
            generator=replace(model.generator, emotions=known["generator"]),
            renderer=replace(model.renderer, emotions=known["renderer"]),
        )
    return model


def _expert(model: MethodConfig) -> SyncConfig | None:
    return model.joint.sync if isinstance(model, LMDiffConfig) else None


def _over_their_codec(ours: LatentConfigT, theirs: RendererOptions) -> LatentConfigT:
    """Return our renderer with their codec, unless a pre-trained one was asked for or comes with our base."""
    if not isinstance(theirs, LatentDiffusionConfig) or ours.codec.kind != "compact":
        return ours
    return replace(ours, codec=theirs.codec)


def _carried(config: TrainConfig, start: Path) -> tuple[str, ...] | None:
    """Return how the names of the tensors begin that are taken from `start`; None for all of them.

    A generator of another form starts afresh where it is what is trained. A latent renderer whose denoiser is another
    than theirs does so over their codec, or over its own; one of lmdiff also over a codec of difftalker's, with its
    generator where that is not what is trained. An expert comes along unless the stage sync makes another.
    """
    theirs, ours = checkpoint.read_config(start), config.model
    if _grows(config, start):
        return ("generator.",)
    another = config.stage == "landmarks" and theirs.generator != ours.generator
    if not isinstance(theirs.renderer, LatentDiffusionConfig):
        return ("renderer.",) if another and isinstance(ours, ATLConfig) else None
    same_method = type(theirs) is type(ours)
    expert = ("expert.",) if _expert(theirs) == _expert(ours) else ()
    if same_method and another:
        return ("renderer.", *expert)
    if same_method and (config.stage != "renderer" or theirs.renderer == ours.renderer):
        return None if expert else ("generator.", "renderer.")
    generator = () if not same_method and config.stage == "landmarks" else ("generator.",)
    same_codec = isinstance(ours.renderer, LatentDiffusionConfig) and ours.renderer.codec == theirs.renderer.codec
    return (*generator, *expert, "renderer.codec.") if same_codec else (*generator, *expert)


def _grows(config: TrainConfig, start: Path) -> bool:
    """Return whether the renderer of atl-diff is trained further in another form than `start` has it."""
    theirs = checkpoint.read_config(start)
    ours = config.model
    return (
        config.stage == "renderer" and isinstance(ours, ATLConfig) and isinstance(theirs, ATLConfig)
        and ours.renderer != theirs.renderer
    )  # fmt: skip


def _task(
    model: Model,
    manifest: Manifest,
    config: TrainConfig,
    write: Callable[[nn.Module], None],
    network: LpipsAlexNet | None,
) -> Task:
    """Return the stage of a model's method."""
    landmarks = config.stage == "landmarks"
    if isinstance(model, LMDiffModel) and config.stage in ("joint", "sync"):
        if config.stage == "sync":
            return sync_task(model, manifest, config, write)
        return joint_task(model, manifest, config, write, network)
    match model:
        case ATLModel():
            if not landmarks and model.config.renderer.layered:
                return mouth_task(model, manifest, config, write, network)
            return (landmarks_task if landmarks else renderer_task)(model, manifest, config, write)
        case PublishedModel():
            return (kflm_task if landmarks else paper_renderer_task)(model, manifest, config, write)
        case DiffTalkerModel() | LMDiffModel():
            if config.stage == "codec":
                return codec_task(model, manifest, config, write)
            if not landmarks and model.config.renderer.layered:
                return mouth_task(model, manifest, config, write, network)
            return (completion_task if landmarks else latent_renderer_task)(model, manifest, config, write)


def align_data(
    weights: str | os.PathLike[str], data: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Measure the lag of every training clip of a prepared folder by a checkpoint's generator, and keep it there.

    Raises:
        CheckpointError: not a checkpoint of ours, or one of a method whose generator hears no log-mel columns.
    """
    manifest = Manifest.load(data)
    model = checkpoint.load_model(checkpoint.locate(weights))
    if not isinstance(model, ATLModel):
        raise CheckpointError(f"checkpoint {weights}: got method {method_of(model.config)}, expected atl-diff")
    return align(manifest, model.generator, progress)
