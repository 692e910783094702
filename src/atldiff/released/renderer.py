"""The released renderer: a folder that diffusers wrote, with a U-Net and a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atldiff.backbones.weights import read_tensors
from atldiff.config.atl_published import ConditionUNetConfig, ScheduleConfig
from atldiff.config.check import build
from atldiff.errors import CheckpointError
from atldiff.methods.atl_published.condition_unet import MODEL_CLASS, config_from_diffusers
from atldiff.released.read import read_json

if TYPE_CHECKING:
    from pathlib import Path

    import torch

INDEX_FILE, MODEL_CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SCHEDULER_CLASS = "DDIMScheduler"

_SCHEDULE_FIELDS = {
    "num_train_timesteps": "train_steps",
    "beta_start": "beta_start",
    "beta_end": "beta_end",
    "beta_schedule": "beta_schedule",
    "prediction_type": "prediction",
    "timestep_spacing": "spacing",
    "steps_offset": "steps_offset",
    "set_alpha_to_one": "end_at_one",
}
_DEFAULTS = {
    "train_steps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction": "epsilon",
    "spacing": "leading",
    "steps_offset": 0,
    "end_at_one": True,
}
"""What diffusers takes where its file says nothing; ours may be others."""
_UNUSED = {"dynamic_thresholding_ratio", "sample_max_value"}
"""Read by diffusers only when `thresholding` is on, which is refused."""
_MUST_BE_OFF = ("trained_betas", "thresholding", "rescale_betas_zero_snr")


@dataclass(frozen=True, slots=True)
class RendererFiles:
    """The files of a released renderer."""

    unet_config: Path
    unet_weights: Path
    scheduler_config: Path


def find_files(folder: Path) -> RendererFiles:
    """Return the files of a renderer: in `unet/` and `scheduler/`, or at the top of the folder.

    Raises:
        CheckpointError: no such folder, a file is missing, or the index names classes that are not diffusers' own.
    """
    if not folder.is_dir():
        raise CheckpointError(f"lm2face {folder}: no such folder; expected the authors' folder with unet/ in it")
    if (folder / INDEX_FILE).is_file():
        _check_index(folder / INDEX_FILE)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    weights = [unet / name for name in WEIGHT_FILES if (unet / name).is_file()]
    if not (unet / MODEL_CONFIG).is_file() or not weights:
        lacking = WEIGHT_FILES[0] if (unet / MODEL_CONFIG).is_file() else MODEL_CONFIG
        raise CheckpointError(
            f"lm2face {folder}: no unet/{lacking}; expected the authors' folder with unet/{MODEL_CONFIG}, "
            f"unet/{WEIGHT_FILES[0]} and scheduler/{SCHEDULER_CONFIG}, or those files at its top"
        )
    schedulers = [path for path in (folder / "scheduler" / SCHEDULER_CONFIG, folder / SCHEDULER_CONFIG)
                  if path.is_file()]  # fmt: skip
    if not schedulers:
        raise CheckpointError(
            f"lm2face {folder}: no scheduler/{SCHEDULER_CONFIG}; without it nobody knows what the U-Net predicts"
        )
    return RendererFiles(unet / MODEL_CONFIG, weights[0], schedulers[0])


def read_unet(files: RendererFiles) -> tuple[ConditionUNetConfig, dict[str, torch.Tensor]]:
    """Return the U-Net's configuration and its tensors in diffusers' names.

    Raises:
        CheckpointError: a network of another class (named), unknown fields (all named), or not a file of tensors.
    """
    try:
        config = config_from_diffusers(read_json(files.unet_config))
    except ValueError as error:
        raise CheckpointError(f"lm2face {files.unet_config}: {error}") from None
    return config, read_tensors(files.unet_weights)


def read_schedule(files: RendererFiles) -> ScheduleConfig:
    """Return the forward process that a renderer was trained with.

    Raises:
        CheckpointError: a scheduler that is not DDIM's (named), or a setting of it that we do not have.
    """
    try:
        return schedule_from_diffusers(read_json(files.scheduler_config))
    except ValueError as error:
        raise CheckpointError(f"lm2face {files.scheduler_config}: {error}") from None


def schedule_from_diffusers(values: Mapping[str, Any]) -> ScheduleConfig:
    """Return the forward process of a `scheduler_config.json`; fields that are left out have diffusers' defaults.

    Raises:
        ValueError: another scheduler, unknown fields (all named), or a value that we cannot have.
    """
    kind = values.get("_class_name", SCHEDULER_CLASS)
    if kind != SCHEDULER_CLASS:
        raise ValueError(f"scheduler config: got class {kind}, expected {SCHEDULER_CLASS}, with which we sample")
    said = {name: value for name, value in values.items() if not name.startswith("_") and value is not None}
    for name in _MUST_BE_OFF:
        if said.pop(name, False):
            raise ValueError(f"scheduler config: got {name}, expected a schedule without it; we cannot sample so")
    clip, limit = said.pop("clip_sample", True), said.pop("clip_sample_range", 1.0)
    if not isinstance(clip, bool):
        raise ValueError(f"scheduler config: clip_sample: got {clip!r}, expected true or false")
    unknown = sorted(said.keys() - _SCHEDULE_FIELDS.keys() - _UNUSED)
    if unknown:
        raise ValueError(
            f"scheduler config: got unknown fields {', '.join(unknown)}; expected those of {SCHEDULER_CLASS}: "
            f"{', '.join(sorted(_SCHEDULE_FIELDS))}"
        )
    ours = {_SCHEDULE_FIELDS[name]: value for name, value in said.items() if name in _SCHEDULE_FIELDS}
    return build(ScheduleConfig, {**_DEFAULTS, **ours, "clip_sample": limit if clip else 0.0}, "scheduler")


def _check_index(path: Path) -> None:
    """Raise unless the classes that a pipeline's index names are those we know; the pipeline's own is the authors'."""
    for part, kind in (("unet", MODEL_CLASS), ("scheduler", SCHEDULER_CLASS)):
        named = read_json(path).get(part)
        if isinstance(named, list) and len(named) == 2 and named[1] != kind:
            raise CheckpointError(
                f"lm2face {path}: {part} is a {'.'.join(map(str, named))}, expected diffusers.{kind}; another class "
                "cannot be rebuilt from its weights alone"
            )
