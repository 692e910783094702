"""A style of motion: by name, from a track, from a folder; and what is none is refused in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from atldiff.errors import CheckpointError, MediaError
from atldiff.landmarks.blink import blink_displacement, blink_pulse
from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.landmarks.motion import PIVOT
from atldiff.landmarks.motion_model import own_motion
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.motion_style import check_style, open_motion, style_of
from atldiff.types import MOTION_FILE, MOTION_STYLES, Controls, LandmarkTrack


def moving(turn_deg: float, *, frames: int = 250, fps: int = 25, blinks: int = 4) -> LandmarkTrack:
    """Return somebody who sways by `turn_deg` on all three axes and blinks so often."""
    seconds = np.arange(frames) / fps
    wave = turn_deg * np.sqrt(2) * np.sin(2 * np.pi * seconds * [[0.8], [1.0], [1.2]])
    rotation = rotation_from_euler(*wave)
    middles = (np.arange(blinks) + 0.5) * frames / 25 / fps * 25 / blinks * 25
    closure = np.max([[blink_pulse(25 * at - m, 1.2, 2.0) for at in seconds] for m in middles], axis=0)
    neutral = mean_shape().astype(np.float32)
    return LandmarkTrack(
        neutral=neutral,
        displacements=blink_displacement(neutral, closure.astype(np.float32)),
        rotation=rotation.astype(np.float32),
        translation=(200 - 80 * rotation @ PIVOT).astype(np.float32),
        scale=np.full(frames, 80, np.float32),
        fps=Fraction(fps),
        size=(400, 400),
    )


def test_names_are_those_of_the_bundled_weights() -> None:
    for name in MOTION_STYLES:
        check_style(name)
        weights, style = open_motion(name)
        assert style == own_motion(name)[1]
        assert weights is own_motion(name)[0]
    assert Controls().motion_style in MOTION_STYLES
    with pytest.raises(ValueError, match="motion_style: got ''"):
        Controls(motion_style="")


def test_a_folder_takes_the_place_of_the_package_s_weights(tmp_path: Path) -> None:
    changed = {name: value.copy() for name, value in own_motion("natural")[0].items()}
    changed["styles"][:, 0] *= 2
    save_file(changed, tmp_path / MOTION_FILE)
    for name in MOTION_STYLES:
        weights, style = open_motion(name, tmp_path)
        assert style.head_deg == pytest.approx(2 * open_motion(name)[1].head_deg)
        assert np.array_equal(weights["styles"], changed["styles"])
    moving(2.0).save(tmp_path / "person.npz")
    weights, style = open_motion(str(tmp_path / "person.npz"), tmp_path)
    assert np.array_equal(weights["styles"], changed["styles"])
    assert style == open_motion(str(tmp_path / "person.npz"))[1]
    with pytest.raises(CheckpointError, match="motion weights"):
        open_motion("natural", tmp_path / "nowhere")


@pytest.mark.parametrize("fps", [25, 50])
def test_a_track_gives_its_own_liveliness(tmp_path: Path, fps: int) -> None:
    calm, lively = (style_of(moving(turn, frames=10 * fps, fps=fps)) for turn in (1.0, 4.0))
    assert calm.head_deg == pytest.approx(1.2, rel=0.1)  # with what is added to each
    assert lively.head_deg == pytest.approx(4.2, rel=0.1)
    assert calm.blink_hz == pytest.approx(0.4)
    moving(4.0, frames=10 * fps, fps=fps).save(tmp_path / "person.npz")
    assert open_motion(str(tmp_path / "person.npz"))[1] == lively


def test_a_track_too_short_to_tell() -> None:
    with pytest.raises(ValueError, match=r"motion_style: got 1.6 s of a face, expected at least 2 s"):
        style_of(moving(1.0, frames=40))


def test_what_is_no_style_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^motion_style: got 'wild', expected calm, natural, lively, a video, .*"):
        check_style("wild")
    with pytest.raises(CheckpointError, match="expected a folder made by `atldiff train motion`"):
        check_style(str(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(MediaError, match="without moving pictures"):
        check_style(str(tmp_path / "notes.txt"))
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="landmark track"):
        open_motion(str(tmp_path / "other.npz"))
