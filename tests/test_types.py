from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.types import EMOTIONS, POINTS, Controls, LandmarkTrack, Portrait, emotion_label


def make_track(frames: int = 5, seed: int = 0) -> LandmarkTrack:
    random = np.random.default_rng(seed)
    return LandmarkTrack(
        neutral=random.normal(size=(POINTS, 3)).astype(np.float32),
        displacements=random.normal(0, 0.1, (frames, POINTS, 3)).astype(np.float32),
        rotation=rotation_from_euler(*random.uniform(-20, 20, (3, frames))).astype(np.float32),
        translation=random.uniform(0, 500, (frames, 3)).astype(np.float32),
        scale=random.uniform(50, 150, frames).astype(np.float32),
        fps=Fraction(30_000, 1_001),
        size=(720, 1280),
    )


def same(first: LandmarkTrack, second: LandmarkTrack) -> bool:
    arrays = ("neutral", "displacements", "rotation", "translation", "scale")
    return (first.fps, first.size) == (second.fps, second.size) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays
    )


class TestPortrait:
    image = np.zeros((40, 50, 3), np.uint8)
    landmarks = np.ones((POINTS, 3), np.float32)

    def test_holds_what_it_was_given(self) -> None:
        portrait = Portrait(self.image, self.landmarks)
        assert portrait.image is self.image
        with pytest.raises(FrozenInstanceError):
            portrait.image = self.image  # pyright: ignore[reportAttributeAccessIssue]

    @pytest.mark.parametrize(
        "image",
        [np.zeros((40, 50), np.uint8), np.zeros((40, 50, 4), np.uint8), np.zeros((3, 40, 50), np.uint8),
         np.zeros((40, 50, 3), np.float32), np.zeros((1, 40, 50, 3), np.uint8)],
    )  # fmt: skip
    def test_other_images(self, image: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"portrait image: got .*, expected \(H, W, 3\) uint8"):
            Portrait(image, self.landmarks)

    @pytest.mark.parametrize("shape", [(468, 3), (478, 2), (1, 478, 3), (478,)])
    def test_other_landmarks(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"portrait landmarks: got .*, expected \(478, 3\) pixels"):
            Portrait(self.image, np.zeros(shape, np.float32))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_landmarks_are_finite(self, value: float) -> None:
        landmarks = self.landmarks.copy()
        landmarks[7, 1] = value
        with pytest.raises(ValueError, match="portrait landmarks: got NaN or infinity"):
            Portrait(self.image, landmarks)


class TestTrack:
    def test_points_are_the_formula(self) -> None:
        track = make_track()
        points = track.points()
        assert points.shape == (5, POINTS, 3)
        assert points.dtype == np.float32
        for frame, point in ((0, 0), (3, 477), (4, 33)):
            shape = track.neutral[point].astype(float) + track.displacements[frame, point]
            wanted = track.scale[frame] * (track.rotation[frame].astype(float) @ shape) + track.translation[frame]
            assert np.allclose(points[frame, point], wanted, atol=1e-3)

    def test_length_and_slice(self) -> None:
        track = make_track(9)
        assert len(track) == 9
        part = track.slice(2, 6)
        assert len(part) == 4
        assert np.array_equal(part.points(), track.points()[2:6])
        assert (part.fps, part.size) == (track.fps, track.size)
        assert len(track.slice(8, 20)) == 1

    @pytest.mark.parametrize(
        ("name", "shape"),
        [("neutral", (468, 3)), ("neutral", (POINTS, 2)), ("displacements", (5, 468, 3)),
         ("displacements", (4, POINTS, 3)), ("displacements", (5, POINTS)),
         ("rotation", (5, 3)), ("rotation", (4, 3, 3)), ("translation", (5, 2)),
         ("scale", (5, 1)), ("scale", (6,))],
    )  # fmt: skip
    def test_shapes_are_checked(self, name: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"^track \w+: got \(.*\), expected \("):
            replace(make_track(), **{name: np.ones(shape, np.float32)})

    @pytest.mark.parametrize("name", ["neutral", "displacements", "rotation", "translation", "scale"])
    def test_numbers_are_finite(self, name: str) -> None:
        track = make_track()
        array = getattr(track, name).copy()
        array.flat[-1] = np.nan
        with pytest.raises(ValueError, match=f"track {name}: got NaN or infinity"):
            replace(track, **{name: array})

    @pytest.mark.parametrize("frames", [0, 1, 6])
    def test_save_and_load(self, tmp_path: Path, frames: int) -> None:
        track = make_track(frames)
        path = tmp_path / "take 1.npz"
        track.save(path)
        loaded = LandmarkTrack.load(path)
        assert same(loaded, track)
        assert np.array_equal(loaded.points(), track.points())
        assert [file.name for file in tmp_path.iterdir()] == ["take 1.npz"]

    def test_saving_replaces_and_keeps_the_name(self, tmp_path: Path) -> None:
        path = tmp_path / "track"  # no suffix is added
        make_track(3).save(str(path))
        other = make_track(4, seed=1)
        other.save(path)
        assert same(LandmarkTrack.load(path), other)

    def test_a_plain_reader_finds_pixels(self, tmp_path: Path) -> None:
        track = make_track()
        track.save(tmp_path / "track.npz")
        with np.load(tmp_path / "track.npz", allow_pickle=False) as file:
            assert np.array_equal(file["points"], track.points())

    def refused(self, path: Path) -> str:
        with pytest.raises(ValueError, match="landmark track") as caught:
            LandmarkTrack.load(path)
        message = str(caught.value)
        assert "\n" not in message
        assert path.name in message
        assert "atldiff landmarks" in message
        return message

    def test_what_is_no_track(self, tmp_path: Path) -> None:
        assert "no such file" in self.refused(tmp_path / "missing.npz")
        self.refused(tmp_path)
        path = tmp_path / "other.npz"
        path.write_bytes(b"")
        self.refused(path)
        path.write_text("not a zip")
        self.refused(path)
        np.savez(path, a=np.zeros(3))
        assert "format_version" in self.refused(path)
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
        self.refused(path)

    def changed(self, tmp_path: Path, **changes: object) -> Path:
        make_track().save(tmp_path / "good.npz")
        with np.load(tmp_path / "good.npz") as file:
            arrays = dict(file)
        arrays.update(changes)  # pyright: ignore[reportArgumentType]
        np.savez(tmp_path / "bad.npz", **arrays)
        return tmp_path / "bad.npz"

    def test_damaged_tracks(self, tmp_path: Path) -> None:
        assert "format 2, expected 1" in self.refused(self.changed(tmp_path, format_version=np.int64(2)))
        assert "scale" in self.refused(self.changed(tmp_path, scale=np.ones(3)))
        assert "NaN" in self.refused(self.changed(tmp_path, scale=np.full(5, np.nan)))
        self.refused(self.changed(tmp_path, fps=np.array([25, 0])))
        self.refused(self.changed(tmp_path, fps=np.array([25])))

    def test_pickled_arrays_are_not_opened(self, tmp_path: Path) -> None:
        trap = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> tuple:
                return Path.touch, (trap,)

        self.refused(self.changed(tmp_path, scale=np.array([Trap()], object)))
        assert not trap.exists()


class TestControls:
    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [("expression_scale", 0.0, 3.0), ("blink_rate_hz", 0.0, 2.0), ("head_motion", 0.0, 3.0),
         ("smoothing_frames", 0.0, 5.0), ("seed", 0, 2**32 - 1)],
    )  # fmt: skip
    def test_ranges(self, name: str, low: float, high: float) -> None:
        for value in (low, high):
            assert getattr(Controls(**{name: value}), name) == value
        step = 1 if name == "seed" else 1e-3
        for value in (low - step, high + step, float("nan"), float("inf"), -float("inf")):
            with pytest.raises(ValueError, match=rf"^{name}: got .*, expected {low} to {high}$"):
                Controls(**{name: value})

    def test_defaults_are_as_trained(self) -> None:
        controls = Controls()
        assert (controls.expression_scale, controls.head_motion, controls.still) == (1.0, 1.0, False)
        with pytest.raises(TypeError):
            Controls(1.0)  # pyright: ignore[reportCallIssue]


class TestEmotions:
    def test_labels_are_those_of_the_released_code(self) -> None:
        """papers.md 1.3: the label map of the released code, in its order."""
        assert EMOTIONS == ("angry", "fear", "sad", "contempt", "happy", "surprised", "disgusted", "neutral")
        assert [emotion_label(emotion) for emotion in EMOTIONS] == list(range(8))

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_none_is_the_last(self, nothing: str | None) -> None:
        assert emotion_label(nothing) == len(EMOTIONS)

    @pytest.mark.parametrize("word", ["merry", "Happy", "happy ", "7"])
    def test_other_words(self, word: str) -> None:
        for make in (emotion_label, lambda emotion: Controls(emotion=emotion)):
            with pytest.raises(
                ValueError, match=rf"^emotion: got '{word}', expected one of angry, .*neutral$"
            ) as caught:
                make(word)
            assert "\n" not in str(caught.value)

    def test_models_know_the_first_few_or_none(self) -> None:
        assert [emotion_label(None, known) for known in (0, 2, 8)] == [0, 2, 8]
        assert emotion_label("fear", 2) == 1
        with pytest.raises(ValueError, match=r"^emotion: got 'sad', expected one of angry, fear$"):
            emotion_label("sad", 2)
        with pytest.raises(ValueError, match="not trained with emotions; leave it out"):
            emotion_label("sad", 0)

    def test_controls_take_every_emotion(self) -> None:
        for emotion in (None, *EMOTIONS):
            assert Controls(emotion=emotion).emotion == emotion
