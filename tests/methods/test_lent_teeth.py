from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import atldiff.methods
from atldiff import TalkingHead
from atldiff.config import SampleConfig
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER
from atldiff.methods.lent_teeth import BELOW_LIPS, DARKEST, with_lent_teeth
from atldiff.methods.make_lent_teeth import make
from atldiff.types import Portrait
from atldiff.video.cavity import MouthLayers
from atldiff.video.tone import Tone

SHIPPED = load_file(Path(atldiff.methods.__file__).with_name("lent_teeth.safetensors"))
SCALE = 2.0
LINE = 58.0
"""Where the lips meet, in template pixels."""


def contour(gap: float = 0.0) -> np.ndarray:
    """An inner-lip contour (20, 2) in template pixels: a corner, the upper lip, the other corner, the lower lip."""
    across = np.linspace(44, 84, 11)
    bulge = np.sin(np.linspace(0, np.pi, 11)) * gap / 2
    upper, lower = np.stack([across, LINE - bulge], 1), np.stack([across, LINE + bulge], 1)
    return np.concatenate([upper, lower[-2:0:-1]])


def layers(skin: tuple[int, int, int] = (200, 150, 130), gap: float = 0.0, teeth: int = 0) -> MouthLayers:
    image = np.full((280, 280, 3), skin, np.uint8)
    if teeth:
        image[int(SCALE * (LINE - 4)) : int(SCALE * (LINE + 4)), 90:166] = teeth
    chin = np.array([64.0, 88.0])
    to_template = np.array([[1 / SCALE, 0, 0], [0, 1 / SCALE, 0]])
    return MouthLayers.prepare(image, SCALE * contour(gap), SCALE * chin, to_template)


def seen(made: MouthLayers) -> tuple[np.ndarray, np.ndarray]:
    """Return the template places (N, 2) where the row was laid for sure, and its colours (N, 3)."""
    rows, columns = np.nonzero(made.skull > 0.9)
    places = (np.stack([columns, rows], 1) + made.corner) / SCALE
    return places, made.cavity[rows, columns].astype(float)


class TestLending:
    def test_a_row_hangs_a_little_below_resting_lips(self) -> None:
        places, _ = seen(with_lent_teeth(layers(), contour(), 0, None))
        middle = places[np.abs(places[:, 0] - 64) < 6]
        assert middle[:, 1].max() == pytest.approx(LINE + BELOW_LIPS, abs=1.2)
        assert places[:, 0].min() > 30
        assert places[:, 0].max() < 98
        assert places[:, 0].mean() == pytest.approx(64, abs=2)
        assert np.ptp(places[:, 0]) > 30

    def test_own_teeth_are_kept(self) -> None:
        own = layers(gap=9, teeth=230)
        assert own.skull.any()
        assert with_lent_teeth(own, contour(9), 0, None) is own

    def test_a_dark_slit_is_no_mouth_but_a_row_of_teeth_in_it_is(self) -> None:
        slit, toothy = layers(gap=3.4, teeth=25), layers(gap=3.4, teeth=220)
        assert slit.skull.any()
        made = with_lent_teeth(slit, contour(3.4), 0, None)
        _, colours = seen(made)
        assert made.skull.sum() > 2 * slit.skull.sum()
        assert np.percentile(colours.mean(1), 50) > 120  # nothing of the slit across the row
        assert with_lent_teeth(toothy, contour(3.4), 0, None) is toothy

    def test_a_turned_head_has_a_narrower_row_in_the_same_place(self) -> None:
        front, turned = (seen(with_lent_teeth(layers(), contour(), yaw, None))[0] for yaw in (0, 40))
        ratio = np.ptp(turned[:, 0]) / np.ptp(front[:, 0])
        assert ratio == pytest.approx(np.cos(np.radians(40)), abs=0.05)
        assert turned[:, 0].mean() == pytest.approx(front[:, 0].mean(), abs=1)

    def test_mirrored_is_another_row(self) -> None:
        one, other = (with_lent_teeth(layers(), contour(), 0, None, mirrored=m) for m in (False, True))
        assert one.cavity.shape != other.cavity.shape or (one.cavity != other.cavity).any()
        assert seen(other)[0][:, 0].mean() == pytest.approx(64, abs=2)


class TestLight:
    def test_grey_portraits_have_grey_teeth(self) -> None:
        grey = Tone(*np.zeros((2, 256), np.float32))
        _, colours = seen(with_lent_teeth(layers((140, 140, 140)), contour(), 0, grey))
        assert np.ptp(colours, axis=1).max() <= 2

    def test_teeth_are_never_blue_and_dark_skin_is_no_dark_room(self) -> None:
        for skin in ((225, 190, 180), (120, 130, 170), (70, 48, 40), (150, 120, 60)):
            _, colours = seen(with_lent_teeth(layers(skin), contour(), 0, None))
            bright = colours[colours.mean(1) > np.percentile(colours.mean(1), 60)]
            assert (bright[:, 2] - bright[:, 0]).mean() < 12
        _, lit = seen(with_lent_teeth(layers(), contour(), 0, None))
        _, dark = seen(with_lent_teeth(layers((20, 14, 12)), contour(), 0, None))
        assert np.percentile(dark, 90) == pytest.approx(DARKEST * np.percentile(lit, 90), rel=0.15)
        assert np.percentile(dark, 90) > 90


def test_in_a_video_the_mouth_alone_differs(random_model, examples: Path) -> None:
    head = TalkingHead(random_model)
    smile = head.open_portrait(examples / "portrait.jpg")
    points = smile.landmarks.copy()
    points[LIPS_INNER[11:]] = points[LIPS_INNER[9:0:-1]]  # lips that meet
    shut = Portrait(smile.image, points)
    speech = np.sin(np.arange(6400) / 9).astype(np.float32)
    track = head.landmarks(shut, speech)
    wide = replace(track, displacements=track.displacements.copy())
    wide.displacements[:, LIPS_INNER[11:], 1] += 0.12
    frames = {
        (name, flag): np.stack(list(head.render(face, wide, sampling=SampleConfig(steps=1, lent_teeth=flag))))
        for name, face in (("smile", smile), ("shut", shut))
        for flag in (True, False)
    }
    assert (frames["smile", True] == frames["smile", False]).all()  # own teeth
    differs = (frames["shut", True] != frames["shut", False]).any(axis=(0, 3))
    assert differs.any()
    rows, columns = np.nonzero(differs)
    around = wide.points()[:, LIPS_OUTER, :2].reshape(-1, 2)
    assert columns.min() > around[:, 0].min() - 20
    assert columns.max() < around[:, 0].max() + 20
    assert rows.min() > around[:, 1].min() - 20
    assert rows.max() < around[:, 1].max() + 20


def test_what_ships_is_what_the_command_makes(shared_data: Path) -> None:
    """Up to half a pixel at the row's outline, which the processor's last digits of a landmark decide."""
    made = make(shared_data / "portraits" / "obama.jpg")
    assert made.keys() == SHIPPED.keys()
    size = np.minimum(made["seen"].shape, SHIPPED["seen"].shape)
    assert np.abs(np.subtract(made["seen"].shape, SHIPPED["seen"].shape)).max() <= 1
    part = slice(size[0]), slice(size[1])
    for name, worst in (("picture", 4), ("seen", 8), ("shade", 2)):
        difference = np.abs(made[name][part].astype(np.float32) - SHIPPED[name][part])
        assert difference.mean() < worst, name
    assert np.allclose(made["edge"], SHIPPED["edge"], atol=1)
    assert np.allclose(made["step"], SHIPPED["step"], rtol=1e-3)
    assert np.allclose(made["light"], SHIPPED["light"], atol=1)
