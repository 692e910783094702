"""The measures of mouths from videos to figures: one resolution, the first minute, missing frames, cross-driven."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.evaluation import mouths
from atldiff.evaluation.metrics.mouth_crop import EXTENT, ORIGIN, Mouths
from atldiff.evaluation.mouths import mouth_values
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER, POINTS
from atldiff.video.window import RIGID_POINTS, TEMPLATE
from drawn_mouths import SIDE, draw_mouths

OPENINGS = np.concatenate([0.13 + 0.07 * np.sin(0.5 * np.arange(40)), np.full(12, 0.15), np.full(10, 0.01)])


@dataclass(eq=False)
class Video:
    """What `Footage` is to the measures of mouths, made of crops: the picture shows the mouth alone."""

    pictures: list[np.ndarray]
    filled: np.ndarray
    own: int
    read: int = 0

    def __len__(self) -> int:
        return len(self.filled)

    @property
    def found(self) -> np.ndarray:
        return np.ones(len(self), bool)

    def frames(self):
        for index in range(len(self)):
            self.read += 1
            yield self.pictures[min(index, self.own - 1)]


def video(drawn: Mouths, scale: float = 1.0, own: int | None = None) -> Video:
    """Return a video of drawn mouths, enlarged; own: it ends after so many frames and its last one is held."""
    points = np.zeros((len(drawn), POINTS, 3), np.float32)
    points[:, RIGID_POINTS, :2] = (TEMPLATE - ORIGIN) * SIDE / EXTENT
    points[:, LIPS_INNER, :2], points[:, LIPS_OUTER, :2] = drawn.inner, drawn.outer
    points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
    pictures = [cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for f in drawn.frames]
    if own is not None:
        points[own:] = points[own - 1]
    return Video(pictures, points, own or len(drawn))


@pytest.fixture(scope="module")
def network() -> LpipsAlexNet:
    torch.manual_seed(0)
    network = LpipsAlexNet()
    with torch.no_grad():
        for layer in network.linear:
            layer.get_parameter("weight").abs_()
    return network.eval().requires_grad_(False)


def test_the_real_clip_itself(network: LpipsAlexNet) -> None:
    real = video(draw_mouths(OPENINGS, share=0, teeth=True))
    values = mouth_values(real, {"itself": real}, network, paired=True)["itself"]
    assert values["mouth_sharpness"] == pytest.approx(1)
    assert values["mouth_realism"] == pytest.approx(1)
    assert values["mouth_lpips"] == 0
    assert values["teeth_slide"] == pytest.approx(0, abs=0.1)
    assert values["cavity_jitter"] == pytest.approx(0, abs=1)
    assert values["seam_brightness"] > 0  # these teeth are drawn where lips should hide them


def test_a_worse_one_is_worse_and_a_larger_one_is_not_better(network: LpipsAlexNet) -> None:
    drawn = draw_mouths(OPENINGS)
    real = video(drawn)
    foggy = draw_mouths(OPENINGS, share=1, tremble=3)
    for frame in foggy.frames:
        frame[:] = cv2.GaussianBlur(frame, (0, 0), 3)
    rows = {"same": video(drawn, scale=2), "fog": video(foggy)}
    values = mouth_values(real, rows, network, paired=True)
    assert values["same"]["mouth_sharpness"] == pytest.approx(1, abs=0.15)
    assert values["fog"]["mouth_sharpness"] < 0.6
    for name in ("mouth_realism", "mouth_lpips", "teeth_slide", "cavity_jitter"):
        assert values["fog"][name] > values["same"][name], name


def test_without_the_network_and_without_moments() -> None:
    real = video(draw_mouths(OPENINGS))
    row = video(draw_mouths(OPENINGS[:45]))
    paired = mouth_values(real, {"row": row}, None, paired=True)["row"]
    assert set(paired) == {"mouth_sharpness", "teeth_slide", "cavity_jitter", "seam_brightness"}
    assert paired["seam_brightness"] is None  # where the real lips are shut it has no frames
    shut = video(draw_mouths(np.full(20, 0.01)))
    crossed = mouth_values(real, {"row": shut}, None, paired=False)["row"]
    assert crossed["seam_brightness"] > 0  # its own shut lips
    assert crossed["mouth_sharpness"] is None


def test_lips_that_should_be_shut_are_the_real_ones() -> None:
    real = video(draw_mouths(np.full(20, 0.01), teeth=False))
    gaping = video(draw_mouths(np.full(20, 0.2)))
    values = mouth_values(real, {"real": real, "gaping": gaping}, None, paired=True)
    assert values["real"]["seam_brightness"] < 1
    assert values["gaping"]["seam_brightness"] > 10


def test_frames_that_stand_for_missing_ones(network: LpipsAlexNet) -> None:
    drawn = draw_mouths(OPENINGS, tremble=3)
    real = video(drawn)
    rows = {"whole": real, "ended": video(drawn, own=20)}
    values = mouth_values(real, rows, network, paired=True)
    assert values["ended"]["mouth_lpips"] > values["whole"]["mouth_lpips"] == 0
    assert values["whole"]["cavity_jitter"] > 4
    assert values["ended"]["cavity_jitter"] is None  # 40 still frames would have made it 0


def test_the_first_minute_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouths, "MOUTH_FRAMES", 30)
    real = video(draw_mouths(OPENINGS))
    values = mouth_values(real, {"itself": real}, None, paired=True)["itself"]
    assert real.read == 30
    assert values["mouth_sharpness"] == pytest.approx(1)
    assert values["seam_brightness"] is None  # the lips shut later
