"""A video that ends before the real clip: what is missing is a figure of its own, and costs in the others."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.evaluation import report
from atldiff.evaluation.footage import Footage, hold_last, length_difference_ms, missing_frames, watch
from atldiff.evaluation.measure import measure_clip
from atldiff.evaluation.metrics.fid import Fid
from atldiff.evaluation.pictures import Backbones
from atldiff.evaluation.protocol import STATIC_PHOTO, TOLERATED_FRAMES
from atldiff.landmarks.detect import FaceTracker
from atldiff.video.read import read_frames_at
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = 40
HELD = (
    "psnr", "psnr_mouth", "ssim", "lmd", "mouth_lmd", "mouth_lmd_aligned", "lvd", "lip_correlation", "lip_amplitude",
)  # fmt: skip
"""Measures in which the last frame stands for those that are missing."""
OWN = ("flicker", "seam_window", "seam_box", "face_found", "blink_rate", "head_range_deg", "jitter")
"""Measures of the frames there are: to stand still would be to a video's advantage."""


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker() as tracker:
        yield tracker


@pytest.fixture(scope="module")
def cut(talking: Path, tracker: FaceTracker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Footage]:
    """Return a function that writes the first frames of a video, nearly without loss, and looks at them."""
    folder = tmp_path_factory.mktemp("cut")
    pictures = list(read_frames_at(talking))
    known: dict[int, Footage] = {}

    def make(frames: int) -> Footage:
        if frames not in known:
            path = folder / f"{frames}.mp4"
            duration = Fraction(frames, 25)
            size = pictures[0].shape[:2]
            with VideoWriter(path, size=size, fps=25, audio=talking, duration=duration, quality=4) as writer:
                for index in range(frames):
                    writer.write(pictures[min(index, FRAMES - 1)])
            known[frames] = watch(path, tracker)
        return known[frames]

    return make


@pytest.fixture(scope="module")
def values(cut: Callable[[int], Footage], talking: Path, tracker: FaceTracker) -> dict[int, dict]:
    real = watch(talking, tracker)
    lengths = (40, 39, 38, 37, 32, 24, 43, 60)
    rows = {str(frames): cut(frames) for frames in lengths}
    figures = measure_clip(real, rows, Backbones(), {})
    assert len(figures.opening["32"]) == 32  # the curves end where the video does
    return {frames: {**figures.values[str(frames)], "notes": figures.notes} for frames in lengths}


def test_missing_and_surplus_frames(values: dict[int, dict]) -> None:
    found = {n: (v["missing_frames"], v["surplus_frames"], round(v["length_difference_ms"])) for n, v in values.items()}
    assert found == {
        40: (0, 0, 0),
        39: (0, 0, -40),  # what an encoder may round away is no fault
        38: (0, 0, -80),
        37: (7.5, 0, -120),
        32: (20, 0, -320),
        24: (40, 0, -640),
        43: (0, 7.5, 120),
        60: (0, 50, 800),
    }
    assert values[40]["notes"] == [
        "37: ends 3 frames before the real clip's 40; its last one stands for them",
        "32: ends 8 frames before the real clip's 40; its last one stands for them",
        "24: ends 16 frames before the real clip's 40; its last one stands for them",
        "43: goes on for 3 frames after the real clip's 40; they are not compared",
        "60: goes on for 20 frames after the real clip's 40; they are not compared",
    ]


def test_what_is_missing_costs(values: dict[int, dict]) -> None:
    for measure in HELD[:-1]:
        way = 1 if measure in ("lmd", "mouth_lmd", "mouth_lmd_aligned", "lvd") else -1
        whole, *cut = (values[frames][measure] for frames in (40, 32, 24))
        assert all(way * (value - whole) > 0 for value in cut), (measure, whole, cut)
        # How well two curves correlate does not fall with every frame that is taken away.
        assert measure == "lip_correlation" or way * (cut[1] - cut[0]) > 0, (measure, whole, cut)
    assert values[32]["psnr"] < values[40]["psnr"] - 6
    for measure in ("psnr", "lmd", "lvd", "lip_correlation"):
        assert values[39][measure] == pytest.approx(values[40][measure], rel=0.05), measure


def test_standing_still_is_no_merit(
    values: dict[int, dict], cut: Callable[[int], Footage], talking: Path, tracker
) -> None:
    """The measures of a video's own frames are those of a real clip that ends there as well."""
    real = watch(talking, tracker)
    short = replace(
        real,
        points=real.points[:32],
        samples=None if real.samples is None else real.samples[: 32 * 640],
        picture_s=1.28,
    )
    alone = measure_clip(short, {"32": cut(32)}, Backbones(), {}).values["32"]
    for measure in OWN:
        # The crop's place, a median over the real clip's frames, is nearly the same.
        assert values[32][measure] == pytest.approx(alone[measure], rel=0.02, abs=0.05), measure


def test_a_video_held_by_its_maker_reads_as_one_that_ends(
    values: dict[int, dict], talking: Path, tracker: FaceTracker, tmp_path: Path
) -> None:
    pictures = list(read_frames_at(talking))
    path = tmp_path / "held.mp4"
    size, duration = pictures[0].shape[:2], Fraction(FRAMES, 25)
    with VideoWriter(path, size=size, fps=25, audio=talking, duration=duration, quality=4) as writer:
        for index in range(FRAMES):
            writer.write(pictures[min(index, 31)])
    real = watch(talking, tracker)
    held = measure_clip(real, {"held": watch(path, tracker)}, Backbones(), {}).values["held"]
    assert held["missing_frames"] == 0
    for measure in HELD:
        # Encoded once more: landmarks are found in other noise. A face this small, tracked again from a place a
        # thousandth of a pixel away, has lips that open by up to a sixth more or less.
        noise = 0.4 if measure.startswith(("lip_", "mouth_")) else 0.12
        assert held[measure] == pytest.approx(values[32][measure], rel=noise), measure


def test_the_sound_of_missing_frames_is_the_real_one(cut: Callable[[int], Footage]) -> None:
    real, short = cut(40), cut(32)
    assert real.samples is not None
    assert short.samples is not None
    held = hold_last(short, real)
    assert (len(held), held.own) == (40, 32)
    assert held.samples is not None
    np.testing.assert_array_equal(held.samples[: len(short.samples)], short.samples)
    np.testing.assert_array_equal(held.samples[32 * 640 :], real.samples[32 * 640 : 40 * 640])
    np.testing.assert_array_equal(held.points[32:], np.broadcast_to(short.points[-1], (8, 478, 3)))
    frames = list(held.frames())
    assert len(frames) == 40
    assert all((frame == frames[31]).all() for frame in frames[32:])
    assert hold_last(real, short) is real
    assert hold_last(replace(short, samples=None), real).samples is None
    gone = short.points.copy()
    gone[-3:] = np.nan  # the face had left before the end: its last place counts, not nothing
    assert hold_last(replace(short, points=gone), real).found[32:].all()


def test_a_length_that_the_file_misstates(cut: Callable[[int], Footage]) -> None:
    real, short = cut(40), cut(32)
    assert length_difference_ms(replace(short, picture_s=1.6), real) == pytest.approx(-320)
    assert length_difference_ms(replace(short, picture_s=None), real) == pytest.approx(-320)
    assert length_difference_ms(replace(short, picture_s=1.27), real) == pytest.approx(-330)
    assert missing_frames(short, real) == 8
    assert missing_frames(real, short) == -8
    assert missing_frames(cut(40 - TOLERATED_FRAMES), real) == 0


def test_a_copy_at_another_rate_is_in_step(talking: Path, tracker: FaceTracker, tmp_path: Path) -> None:
    """Every frame of a copy at 30 fps is the real one nearest in time; so is what is measured of it."""
    pictures = [np.roll(frame, 2 * index, axis=1) for index, frame in enumerate(read_frames_at(talking))]
    rows = {}
    for rate in (25, 30):
        path = tmp_path / f"{rate}.mp4"
        size, duration = pictures[0].shape[:2], Fraction(FRAMES, 25)
        with VideoWriter(path, size=size, fps=rate, audio=talking, duration=duration, quality=4) as writer:
            for index in range(FRAMES * rate // 25):
                writer.write(pictures[min((index * 25 + rate // 2) // rate, FRAMES - 1)])
        rows[str(rate)] = watch(path, tracker)
    copy = measure_clip(rows["25"], rows, Backbones(), {}).values["30"]
    assert copy["fps"] == 30
    assert copy["missing_frames"] == copy["surplus_frames"] == 0
    assert copy["psnr"] is not None
    assert copy["psnr"] > 38  # of the frames on display it is 27
    assert copy["lip_lag_ms"] == 0


def test_networks_see_a_video_as_it_was_left(cut: Callable[[int], Footage]) -> None:
    class Brightness(torch.nn.Module):
        num_features = 1

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean(dim=(1, 2, 3))[:, None] / 255

    class Corner:
        frames = 0

        def embed(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
            self.frames += 1
            return frame[:8, :8].astype(np.float32).mean(axis=(0, 1)) + 1

    real, short = cut(40), cut(24)
    fid = {"short": Fid(1)}
    embedder = Corner()
    backbones = Backbones(inception=Brightness(), embedder=embedder)  # type: ignore[arg-type]
    measure_clip(real, {"short": short}, backbones, fid)
    assert (fid["short"].generated, fid["short"].real) == (5, 8)  # every fifth of the frames there are
    assert embedder.frames == 16  # eight each


def test_the_notes_are_said(cut: Callable[[int], Footage], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "e.json", tmp_path / "e.html"
    real, short = cut(40), cut(32)
    command = ["evaluate", "--generated", str(short.path), "--real", str(real.path), "--name", "ours"]
    assert cli.run([*command, "--json", str(out), "--html", str(page)]) == 0
    note = "note: 32: ours: ends 8 frames before the real clip's 40; its last one stands for them"
    said = capsys.readouterr().out
    assert note in said
    assert "missing frames (%)" in said
    assert "length against real (ms)" in said
    result = report.load(out)
    assert result["summary"]["ours"]["missing_frames"]["mean"] == 20
    for row in (STATIC_PHOTO, "ground truth"):
        assert result["summary"][row]["missing_frames"]["mean"] == result["summary"][row]["surplus_frames"]["mean"] == 0
        assert result["summary"][row]["length_difference_ms"]["mean"] == 0
    text = page.read_text(encoding="utf-8")
    assert "missing frames" in text
    assert "its last one stands for them" in text
    assert cli.run(["report", str(out), "--json", str(tmp_path / "s.json")]) == 0
    assert note in capsys.readouterr().out
    assert "ends 8 frames before" in (tmp_path / "s.json").read_text()
    assert cli.run(["report", str(out), "--row", STATIC_PHOTO]) == 0
    assert "note:" not in capsys.readouterr().out
    assert cli.run([*command, "--driving", "cross"]) == 0  # another sound has another length
    said = capsys.readouterr().out
    assert "note:" not in said
    assert "missing frames (%)" not in said


def test_many_notes_are_counted(make_result: Callable[..., dict], capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.commands.report import SHOWN_NOTES, show_evaluation

    result = make_result(clips=20)
    for clip in result["clips"]:
        clip["notes"] = ["face lost in 2 frames"]
    show_evaluation(result)
    out = capsys.readouterr().out
    assert out.count("face lost in 2 frames") == SHOWN_NOTES
    assert f"note: {20 - SHOWN_NOTES} more, in the page and the JSON" in out
