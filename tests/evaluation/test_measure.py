"""The ruler on real clips: what is the same reads as the same, and what is worse reads worse."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from atldiff.evaluation.footage import Footage, watch
from atldiff.evaluation.measure import measure_clip
from atldiff.evaluation.pictures import Backbones
from atldiff.landmarks.detect import FaceTracker
from atldiff.video.read import read_frames_at
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.shared

FRAMES = 75
CLIPS = ("grid/bgix8n.mp4", "mead/M030_level_3_angry_016.mp4", "talkvid/Age_19-30_1.mp4")
"""Three people; the second speaks in anger, the third moves his head by twenty degrees. These two are slow tests."""
LPIPS, EMBEDDER = os.environ.get("ATLDIFF_LPIPS"), os.environ.get("ATLDIFF_EMBEDDER")
"""Weights that this repository does not hold: a file each, the embedder's as FILE=KIND."""


@dataclass
class Versions:
    """A real clip and what was made of it."""

    clip: Path
    folder: Path
    tracker: FaceTracker

    def __post_init__(self) -> None:
        self.pictures = list(read_frames_at(self.clip))[:FRAMES]
        self.real = self.made("real", lambda pictures: pictures)

    def made(self, name: str, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Footage:
        """Write changed frames, nearly without loss, with the clip's sound, and look at the file."""
        frames = change(self.pictures)
        path = self.folder / f"{self.clip.stem}-{name}.mp4"
        duration = Fraction(len(frames), 25)
        with VideoWriter(
            path, size=frames[0].shape[:2], fps=25, audio=self.clip, duration=duration, quality=4
        ) as writer:
            for frame in frames:
                writer.write(np.ascontiguousarray(frame))
        return watch(path, self.tracker)


@pytest.fixture(scope="module", params=[CLIPS[0], *(pytest.param(clip, marks=pytest.mark.slow) for clip in CLIPS[1:])])
def versions(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory):
    with FaceTracker() as tracker:
        yield Versions(shared_data / "clips" / request.param, tmp_path_factory.mktemp("versions"), tracker)


@pytest.fixture(scope="module")
def backbones() -> Backbones:
    from atldiff.backbones import alexnet, embedder

    torch.set_num_threads(1)
    path, _, kind = (EMBEDDER or "").partition("=")
    return Backbones(
        lpips=alexnet.load(LPIPS) if LPIPS else None,
        embedder=embedder.load(path, embedder.KINDS[kind or "facenet"]) if path else None,
    )


def figures(versions: Versions, rows: dict[str, Footage], backbones: Backbones) -> dict[str, dict]:
    return measure_clip(versions.real, rows, backbones, {}).values


def test_a_clip_against_itself(versions: Versions, backbones: Backbones) -> None:
    values = figures(versions, {"itself": versions.real}, backbones)["itself"]
    assert values["psnr"] == values["psnr_mouth"] == math.inf
    assert values["ssim"] == pytest.approx(1, abs=2e-5)  # single precision
    assert values["lmd"] == values["mouth_lmd"] == values["mouth_lmd_aligned"] == values["lvd"] == 0
    assert values["lip_correlation"] == pytest.approx(1)
    assert values["lip_lag_ms"] == 0
    assert values["lip_amplitude"] == pytest.approx(1)
    assert values["seam_window"] == values["seam_box"] == 0
    if backbones.lpips is not None:
        assert values["lpips"] == 0


@pytest.mark.parametrize("late", [3, -2])
def test_a_delay_is_found_exactly(versions: Versions, backbones: Backbones, late: int) -> None:
    def shift(frames: list[np.ndarray]) -> list[np.ndarray]:
        return [frames[min(max(0, i - late), len(frames) - 1)] for i in range(len(frames))]

    shifted = versions.made(f"late{late}", shift)
    values = figures(versions, {"late": shifted}, backbones)["late"]
    assert values["lip_lag_ms"] == -40 * late
    assert values["lip_correlation"] < 0.9
    assert values["av_duration_error_ms"] == pytest.approx(0, abs=1)


def noise(strength: float) -> Callable:
    def change(frames: list[np.ndarray]) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        return [np.clip(f + random.normal(0, strength, f.shape), 0, 255).astype(np.uint8) for f in frames]

    return change


def blur(strength: float) -> Callable:
    return lambda frames: [cv2.GaussianBlur(frame, (0, 0), strength) for frame in frames]


def hold(strength: int) -> Callable:
    """Show every n-th frame only, n times."""
    return lambda frames: [frames[i // strength * strength] for i in range(len(frames))]


def stop(strength: float) -> Callable:
    """Stand still over the last part of the clip."""
    return lambda frames: [frames[min(i, int((1 - strength) * (len(frames) - 1)))] for i in range(len(frames))]


def cut(strength: float) -> Callable:
    """End before the clip does."""
    return lambda frames: frames[: round((1 - strength) * len(frames))]


DEGRADATIONS = {
    "noise": (noise, (6, 12, 24)),
    "blur": (blur, (1, 2.5, 6)),
    "hold": (hold, (2, 6, 15)),
    "stop": (stop, (0.25, 0.6, 1.0)),
    "cut": (cut, (0.1, 0.3, 0.6)),
}
FALLS, RISES = -1, 1
WORSE = {
    "noise": {
        "psnr": FALLS, "psnr_mouth": FALLS, "ssim": FALLS, "lpips": RISES, "identity": FALLS, "flicker": RISES,
        "seam_window": RISES, "seam_box": RISES, "lmd": RISES, "mouth_lmd": RISES, "mouth_lmd_aligned": RISES,
        "lvd": RISES, "jitter": RISES, "lip_correlation": FALLS, "mouth_sharpness": RISES, "mouth_lpips": RISES,
    },
    "blur": {
        "psnr": FALLS, "psnr_mouth": FALLS, "ssim": FALLS, "lpips": RISES, "identity": FALLS, "lmd": RISES,
        "mouth_lmd": RISES, "mouth_lmd_aligned": RISES, "lvd": RISES, "lip_correlation": FALLS, "seam_window": FALLS,
        "mouth_sharpness": FALLS, "mouth_lpips": RISES,
    },
    "hold": {
        "psnr": FALLS, "psnr_mouth": FALLS, "ssim": FALLS, "lpips": RISES, "lmd": RISES, "mouth_lmd": RISES,
        "mouth_lmd_aligned": RISES,
    },
    "stop": {
        "psnr": FALLS, "psnr_mouth": FALLS, "ssim": FALLS, "lpips": RISES, "lmd": RISES, "mouth_lmd": RISES,
        "lvd": RISES, "lip_correlation": FALLS, "flicker": FALLS, "jitter": FALLS, "blink_rate": FALLS,
    },
    "cut": {
        "psnr": FALLS, "psnr_mouth": FALLS, "ssim": FALLS, "lpips": RISES, "lmd": RISES, "mouth_lmd": RISES,
        "lvd": RISES, "lip_correlation": FALLS, "missing_frames": RISES, "length_difference_ms": FALLS,
    },
}  # fmt: skip
"""What grows and what falls with each step of a degradation. A picture that stands still neither flickers nor jitters:
those two are judged by how near they come to the real clip's."""


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_growing_degradation_moves_each_measure_its_way(versions: Versions, backbones: Backbones, kind: str) -> None:
    degrade, strengths = DEGRADATIONS[kind]
    rows = {"real": versions.real}
    rows |= {str(s): versions.made(f"{kind}{s}", degrade(s)) for s in strengths}
    values = figures(versions, rows, backbones)
    for measure, way in WORSE[kind].items():
        series = [values[row][measure] for row in rows]
        if series[0] is None:
            missing = {"lpips": LPIPS, "mouth_lpips": LPIPS, "identity": EMBEDDER}
            assert not missing.get(measure, "nothing"), measure
            continue
        steps = way * np.diff([min(value, 99.0) for value in series])  # infinite PSNR is 99 dB here
        # A blink rate moves by whole blinks: it may stand.
        assert (steps >= 0).all() if measure == "blink_rate" else (steps > 0).all(), (measure, series)


@pytest.mark.skipif(not EMBEDDER, reason="ATLDIFF_EMBEDDER=FILE=KIND names no face embedder")
def test_another_person_is_another_identity(shared_data: Path, backbones: Backbones) -> None:
    with FaceTracker() as tracker:
        people = [watch(shared_data / "clips" / clip, tracker) for clip in CLIPS]
    for real in people:
        rows = {str(other.path): other for other in people}
        values = measure_clip(real, rows, backbones, {}, paired=False).values
        own = values[str(real.path)]["identity"]
        others = [values[name]["identity"] for name in rows if name != str(real.path)]
        assert own > 0.9
        assert max(others) < 0.5
