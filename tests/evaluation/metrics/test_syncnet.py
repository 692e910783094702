from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.evaluation.metrics import syncnet
from atldiff.landmarks.topology import OVAL

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FRAMES = 50


class TimeCode:
    """Stands in for SyncNet: reads the same code off the brightness of frames and off the loudness of the sound."""

    def embed_lips(self, windows: torch.Tensor) -> torch.Tensor:
        assert windows.shape[1:] == (3, 5, 224, 224)
        return windows.mean(dim=(1, 3, 4)) / 20  # (B, 5)

    def embed_sound(self, columns: torch.Tensor) -> torch.Tensor:
        assert columns.shape[1:] == (1, 13, 20)
        return columns[:, 0, 0, 1::4] / 2  # (B, 5), the log energy in the middle of each frame


def talking(delay_frames: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return faces and samples of one random code, the faces late by some frames."""
    random = np.random.default_rng(3)
    code = random.uniform(0, 10, FRAMES)
    loudness = np.repeat(np.exp(code / 2), 640)  # log energy is twice the log amplitude, so code = log energy + const
    samples = loudness * random.choice([-1.0, 1.0], len(loudness)) * 1e-3
    levels = (code * 20)[np.clip(np.arange(FRAMES) - delay_frames, 0, FRAMES - 1)]
    faces = np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (FRAMES, 224, 224, 3))
    return faces, samples.astype(np.float32)


@pytest.mark.parametrize("delay", [-7, 0, 3, 12])
def test_offset_says_how_much_later_to_show_the_video(delay: int) -> None:
    score = syncnet.lse(*talking(delay), TimeCode())  # pyright: ignore[reportArgumentType]
    assert score.offset_ms == -40 * delay
    assert score.lse_c > 0


def test_batches_do_not_matter() -> None:
    faces, samples = talking(2)
    one, other = (syncnet.lse(faces, samples, TimeCode(), batch=size) for size in (7, 100))  # pyright: ignore
    assert one == pytest.approx(other, rel=1e-6)


def test_frames_reach_the_network_as_bgr() -> None:
    seen = []

    class Watching(TimeCode):
        def embed_lips(self, windows: torch.Tensor) -> torch.Tensor:
            seen.append(windows)
            return super().embed_lips(windows)

    faces = np.zeros((FRAMES, 224, 224, 3), np.uint8)
    faces[..., 0], faces[:, 0, 5, 2] = 255, np.arange(FRAMES)
    syncnet.lse(faces, talking()[1], Watching())  # pyright: ignore[reportArgumentType]
    first = seen[0][3]
    assert (first[2] == 255).all()
    assert first[0, :, 0, 5].tolist() == [3, 4, 5, 6, 7]
    assert sum(len(windows) for windows in seen) == FRAMES - 5


def test_score_is_that_of_syncnet_python() -> None:
    want = np.load(GOLDEN / "lse.npz")
    score = syncnet.score(torch.from_numpy(want["lips"]), torch.from_numpy(want["sound"]))
    assert score.lse_d == pytest.approx(float(want["distance"]), rel=1e-5)
    assert score.lse_c == pytest.approx(float(want["confidence"]), rel=1e-5)
    assert score.offset_ms == -40 * int(want["av_offset"])


def test_cepstra_are_those_of_python_speech_features() -> None:
    want = np.load(GOLDEN / "mfcc.npz")  # of noise, digital silence, and clipped noise
    have = syncnet.mfcc(want["samples"] / np.float32(32768))
    np.testing.assert_allclose(have, want["cepstra"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (400, 1), (401, 2), (560, 2), (640 * 30, 119)])
def test_columns_cover_the_samples(samples: int, columns: int) -> None:
    assert syncnet.mfcc(np.zeros(samples, np.float32)).shape == (columns, 13)


def test_blocks_of_columns_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 8000)
    whole = syncnet.mfcc(samples)
    monkeypatch.setattr(syncnet, "_BLOCK", 7)
    np.testing.assert_allclose(syncnet.mfcc(samples), whole, rtol=1e-9, atol=1e-9)


def test_short_clips_are_refused() -> None:
    faces, samples = talking()
    short = syncnet.MIN_FRAMES - 1
    for pair in ((faces[:short], samples), (faces, samples[: short * 640 + 639])):
        with pytest.raises(ValueError, match=r"^clip: got .*at least 21 frames and 13440 samples \(0.84 s\)$"):
            syncnet.lse(*pair, TimeCode())  # pyright: ignore[reportArgumentType]
    syncnet.lse(faces[: short + 1], samples, TimeCode())  # pyright: ignore[reportArgumentType]


def test_box_holds_the_oval_and_forgets_single_frames() -> None:
    points = np.zeros((30, 478, 3), np.float32)
    angle = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points[:, OVAL, 0] = 100 + 40 * np.cos(angle)
    points[:, OVAL, 1] = 80 + 60 * np.sin(angle)
    points[12] += 50  # one bad frame
    boxes = syncnet.face_boxes(points)
    assert boxes.shape == (30, 3)
    np.testing.assert_allclose(boxes, np.tile([100, 80, 60], (30, 1)), atol=0.01)
    assert syncnet.face_boxes(points[:3])[0, 2] == pytest.approx(60)  # no zeros at the ends


def test_crop_reaches_below_the_chin() -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[60, 150] = frame[130, 150] = 255
    crop = syncnet.crop_face(frame, np.array([150.0, 100.0, 50.0]))  # rows 50 to 190, columns 80 to 220
    rows = np.flatnonzero(crop[..., 0].any(axis=1)) / 1.6
    assert rows.min() == pytest.approx(10, abs=1)
    assert rows.max() == pytest.approx(80, abs=1)
    assert crop[:, 112].any()


def test_crop_is_grey_beyond_the_frame() -> None:
    crop = syncnet.crop_face(np.full((100, 100, 3), 200, np.uint8), np.array([0.0, 50.0, 50.0]))
    assert crop.shape == (224, 224, 3)
    assert (crop[:150, :100] == 110).all()
    assert (crop[:150, 125:] == 200).all()
    assert (crop[170:] == 110).all()


@pytest.mark.parametrize("box", [(500.0, 50.0, 20.0), (50.0, -30.0, 20.0), (50.0, 50.0, 0.5), (np.nan, 50.0, 20.0)])
def test_boxes_outside_are_refused(box: tuple) -> None:
    with pytest.raises(ValueError, match="face box"):
        syncnet.crop_face(np.zeros((100, 100, 3), np.uint8), np.array(box))
