"""The motion model's stage: what is counted in the clips, the likelihood of the rest, and unseen people's motion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.manifest import Split
from atldiff.errors import DataError
from atldiff.files import replacing
from atldiff.landmarks.blink import SINCE_FRAMES, Blink, find_blinks
from atldiff.landmarks.motion_codes import BROWS, CODES, KNOT_FRAMES, POSE, amplitudes, heard_steps, smoothed
from atldiff.landmarks.motion_model import (
    DEFAULT_STYLE,
    ORDER,
    SPEED_CAP,
    MotionStream,
    Weights,
    named_style,
)
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, MEL_BANDS
from atldiff.training.motion_data import LEAST_FRAMES, MotionSet, brow_basis, load_motion_clips
from atldiff.training.motion_measure import compared
from atldiff.training.motion_network import MotionNetwork
from atldiff.training.task import Probe, Task
from atldiff.types import MOTION_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.training.motion_data import MotionClip

logger = logging.getLogger(__name__)

STYLE_QUANTILES = (0.25, 0.5, 0.75)
"""Of the people's liveliness and blinks, what `STYLES` are."""
TABLE = 17
WINDOW_FRAMES = 125
"""Generated motion is made as wide as the real one over so long."""
LEAST_YAW_DEG = 2.0
HELD_BACK = 0.72
"""Of the head's width: strangers' sound moves it further than that of the clips, and one picture shows less."""
TRIALS, START_FRAMES = 160, 25
RIDGE = 1e-4
"""Of the autoregression, as a share of what its inputs weigh."""


def motion_task(manifest: Manifest, config: TrainConfig, write: Callable[[Weights], None]) -> Task:
    """Return the stage over a prepared folder.

    Raises:
        DataError: no training clip that is long enough.
    """
    train = load_motion_clips(manifest, Split.TRAIN)
    held_out = [clip for split in (Split.VAL, Split.TEST) for clip in load_motion_clips(manifest, split)]
    if not train:
        raise DataError(
            f"data {manifest.folder}: no training clip of {LEAST_FRAMES} frames or more; expected faces that move"
        )
    weights = _clip_weights(train)
    spread = np.sqrt(np.average([(clip.face.codes / clip.unit).var(axis=0) for clip in train], axis=0, weights=weights))
    module = MotionNetwork()
    source = MotionSet(train, spread, weights, steps=config.frames // KNOT_FRAMES, seed=config.seed)
    ar, mix = _fit_ar(source, weights)
    with torch.no_grad():
        module.ar.copy_(torch.from_numpy(ar))
        module.mix.copy_(torch.from_numpy(mix))
    counted = _counted(train, source, weights, spread)
    logger.info("%d clips, %d with sound; %d held out", len(train), sum(source.sound), len(held_out))
    unseen = MotionSet(held_out, spread, np.ones(len(held_out)), steps=0, seed=0) if held_out else None

    def loss(module_: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        surprise = module(batch["codes"], batch["heard"]) * batch["valid"][:, ORDER:]
        return {"loss": (surprise.sum(1) / batch["valid"][:, ORDER:].sum(1).clamp(min=1)).mean() / CODES}

    def weighed() -> Weights:
        state = {name: value.detach().float().cpu().numpy() for name, value in module.state_dict().items()}
        state["mix"] = np.tril(state["mix"])
        state |= {name: np.asarray(value, np.float32) for name, value in counted.items()}
        state |= _calibrated(state, train)
        return {name: np.array(value, np.float32) for name, value in state.items()}

    def probe(module_: nn.Module) -> Probe:
        if unseen is None:
            return Probe({})
        scalars = {}
        for name, sound in (("surprise_heard", True), ("surprise_silent", False)):
            found = [_surprise(module, unseen, i) for i, heard in enumerate(unseen.sound) if heard == sound]
            if found:
                scalars[name] = float(np.mean(found))
        return Probe(scalars | compared(weighed(), held_out))

    return Task(module=module, source=source, loss=loss, probe=probe, write=lambda _: write(weighed()))


def save_motion(weights: Weights, folder: Path) -> None:
    """Write weights where `load_motion` finds them."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / MOTION_FILE) as partial:
        save_file(weights, partial)


def _clip_weights(clips: list[MotionClip]) -> np.ndarray:
    """Return each clip's probability: people by the square root of their frames, so that no source is all."""
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.identity] = frames.get(clip.identity, 0) + len(clip)
    weights = np.array([len(clip) * frames[clip.identity] ** -0.5 for clip in clips])
    return weights / weights.sum()


def _surprise(module: MotionNetwork, clips: MotionSet, index: int) -> float:
    device = module.mix.device
    item = {name: torch.as_tensor(value, device=device)[None] for name, value in clips.whole(index).items()}
    return float(module(item["codes"], item["heard"]).mean() / CODES)


def _fit_ar(source: MotionSet, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least-squares autoregression (ORDER, CODES, CODES) and its rest's lower triangle (CODES, CODES)."""
    squares, products = np.zeros((ORDER * CODES, ORDER * CODES)), np.zeros((ORDER * CODES, CODES))
    rest = np.zeros((CODES, CODES))
    rows = []
    for both, weight in zip(source.codes, weights, strict=True):
        for codes in both:
            for sign in (1, -1):
                z = codes * np.array([sign, 1, sign, sign, 1, 1])
                past = np.concatenate([z[ORDER - 1 - i : len(z) - 1 - i] for i in range(ORDER)], axis=1)
                rows.append((past, z[ORDER:], weight / len(z)))
    for past, now, weight in rows:
        squares += weight * past.T @ past
        products += weight * past.T @ now
    squares[np.diag_indices(len(squares))] += RIDGE * np.trace(squares) / len(squares)
    solved = np.linalg.solve(squares, products)
    total = 0.0
    for past, now, weight in rows:
        error = now - past @ solved
        rest += weight * error.T @ error
        total += weight * len(error)
    triangle = np.linalg.cholesky(rest / total) * 0.7  # Student's noise and the spread are wider
    return solved.reshape(ORDER, CODES, CODES).transpose(0, 2, 1).astype(np.float32), triangle.astype(np.float32)


def _counted(clips: list[MotionClip], source: MotionSet, weights: np.ndarray, spread: np.ndarray) -> Weights:
    """Return what is counted in the clips: styles, brows, and how blinks come and go."""
    blinks = [find_blinks(clip.face.opening) for clip in clips]
    rates = np.array([FPS * len(found) / len(clip) for found, clip in zip(blinks, clips, strict=True)])
    lively = np.array([amplitudes(clip.face.codes) for clip in clips])
    long = np.array([len(clip) >= WINDOW_FRAMES * 4 // 5 for clip in clips])
    counts = weights * long if long.any() else weights
    styles = np.stack([_quantiles(column, counts, STYLE_QUANTILES) for column in (*lively.T, rates)], axis=1)
    styles[:, 2] *= np.average(rates, weights=counts) / max(styles[1, 2], 1e-3)  # few blinks a clip: a skewed count
    every = [blink for found in blinks for blink in found]
    levels = np.linspace(0, 1, TABLE)
    if every:
        depth = np.array([blink.depth for blink in every])
        shape = [np.minimum(depth / np.quantile(depth, 0.7), 1), [b.closing for b in every], [b.opening for b in every]]
        inner = 0.05 + 0.85 * levels  # neither trembling lids nor eyes that rest
        table = np.stack([np.quantile(values, inner) for values in shape])
    else:
        table = np.stack([np.ones(TABLE), np.ones(TABLE), np.full(TABLE, 2.0)])
    since, feels, centre = _blink_urge(source, blinks)
    return {
        "styles": np.maximum(styles, 1e-3), "spread": spread, "brows": brow_basis(clips, weights),
        "gaze": _gaze(clips, weights),
        "blink_shape": table, "blink_since": since, "blink_feels": feels, "blink_centre": centre,
    }  # fmt: skip


def _gaze(clips: list[MotionClip], weights: np.ndarray) -> np.ndarray:
    """Return how far irises go sideways for a degree of yaw, and wander where people look at the camera."""
    found = [(0.0, 0.0, 0.0)]
    for clip, weight in zip(clips, weights, strict=True):
        open_eyes = clip.face.opening > 0.7 * np.percentile(clip.face.opening, 80)
        yaw, gaze = clip.face.codes[open_eyes, 0], clip.face.gaze[open_eyes, 0]
        if len(yaw) >= LEAST_FRAMES and yaw.std() > LEAST_YAW_DEG:
            yaw, gaze = yaw - yaw.mean(), smoothed(gaze[:, None])[:, 0]
            slope = float((yaw * gaze).sum() / (yaw * yaw).sum())
            found.append((slope, float((gaze - slope * yaw).std()), weight))
    slopes, wander, counts = np.array(found).T
    counts[0] = 1e-9  # where no head turns
    return np.array([_quantiles(slopes, counts, (0.5,))[0], _quantiles(wander, counts, (0.25,))[0]])


def _blink_urge(source: MotionSet, blinks: list[list[Blink]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how the likelihood of a blink depends on the steps since the last, and on level and speed (log-linear)."""
    bins = len(SINCE_FRAMES) + 1
    events, exposed = np.zeros(bins), np.full(bins, 1e-3)
    rows = []
    for found, codes, heard, sound in zip(blinks, source.codes, source.heard, source.sound, strict=True):
        steps = len(codes[0])
        rate = (len(found) + 0.5) / (steps + 30)
        began = np.zeros(steps, bool)
        began[[min(steps - 1, max(0, blink.frame - 2) // KNOT_FRAMES) for blink in found]] = True
        since = np.full(steps, -1)
        last = None
        for step in range(steps):
            since[step] = -1 if last is None else step - last
            last = step if began[step] else last
        known = since >= 1
        at = np.searchsorted(SINCE_FRAMES, since[known] * KNOT_FRAMES, side="right")
        events += np.bincount(at, began[known], bins)
        exposed += np.bincount(at, np.full(len(at), rate), bins)
        if sound:
            speed = np.r_[0, np.minimum(np.abs(np.diff(codes[0][:, POSE], axis=0)).mean(axis=1), SPEED_CAP)]
            rows.append(np.c_[began, np.full(steps, rate), heard[0].mean(axis=1), speed])
    table = (events + 0.5) / (exposed + 0.5)
    table[0] = 0  # lids that are not open yet
    if not rows:
        return table, np.zeros(2), np.zeros(2)
    data = np.concatenate(rows)
    centre = data[:, 2:].mean(axis=0)
    features, began, rate = data[:, 2:] - centre, data[:, 0], data[:, 1]
    feels, offset = np.zeros(2), 0.0
    design = np.c_[features, np.ones(len(features))]
    for _ in range(20):  # Poisson regression, by Newton's method
        mean = rate * np.exp(design @ np.r_[feels, offset])
        gradient = design.T @ (began - mean) - np.r_[5 * feels * features.var(axis=0), 0]
        curvature = (design * mean[:, None]).T @ design + np.diag(np.r_[5 * features.var(axis=0), 1e-6])
        change = np.linalg.solve(curvature, gradient)
        feels, offset = feels + change[:2], offset + change[2]
    return table, feels, centre


def _calibrated(weights: Weights, clips: list[MotionClip]) -> Weights:
    """Return what makes generated motion as wide and blinks as frequent as they are meant to be, by trying it.

    gain: (CODES,) for codes. blink_level: () the logarithm of how much level and speed together add to the blinks.
    """
    ones = {"gain": np.ones(CODES, np.float32), "blink_level": np.zeros((), np.float32)}
    style = named_style(weights, DEFAULT_STYLE)._replace(head_deg=1.0, brows=1.0)
    spoken = [clip.mel for clip in clips if clip.mel is not None]
    heard = (
        [mel for mel in spoken if len(mel) >= WINDOW_FRAMES * COLUMNS_PER_FRAME]
        or spoken
        or [np.zeros((0, MEL_BANDS), np.float32)]
    )
    made, felt = [], []
    for seed in range(TRIALS):
        mel = heard[seed % len(heard)]
        stream = MotionStream(weights | ones, style, seed)
        stream.hear(mel)
        stream.end()
        codes = stream.frames(np.arange(START_FRAMES + WINDOW_FRAMES)).codes
        made.append(codes[START_FRAMES:].std(axis=0))
        steps = codes[::KNOT_FRAMES]
        speed = np.minimum(np.abs(np.diff(steps[:, POSE], axis=0)).mean(axis=1), SPEED_CAP)
        said = heard_steps(mel, len(steps)).mean(axis=1)[1:]
        features = np.stack([said, speed], axis=1) - weights["blink_centre"]
        felt.append(
            np.exp(np.clip(features @ weights["blink_feels"], -2, 2))[: len(mel) // (KNOT_FRAMES * COLUMNS_PER_FRAME)]
        )
    long = [clip for clip in clips if len(clip) >= WINDOW_FRAMES * 4 // 5] or clips
    real = np.median([(clip.face.codes / clip.unit).std(axis=0) for clip in long], axis=0)
    felt = np.concatenate(felt)
    gain = real / np.maximum(np.median(made, axis=0), 1e-6)
    gain[:BROWS] *= HELD_BACK
    return {
        "gain": gain.astype(np.float32),
        "blink_level": np.array(np.log(felt.mean()) if len(felt) else 0.0, np.float32),
    }


def _quantiles(values: np.ndarray, weights: np.ndarray, wanted: tuple[float, ...]) -> np.ndarray:
    order = np.argsort(values)
    return np.interp(wanted, np.cumsum(weights[order]) / weights.sum(), values[order])
