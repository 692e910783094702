from __future__ import annotations

import io
import re
import tracemalloc
import warnings
import zipfile
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from atldiff.emotions import EMOTIONS, emotion_label
from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.types import POINTS, Controls, LandmarkTrack, Portrait


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

    WRONG = (
        ({"fps": Fraction(0)}, "fps: got 0, expected 1 to 1000"),
        ({"fps": Fraction(-25)}, "fps: got -25"),
        ({"fps": Fraction(10**12)}, r"fps: got 1e\+12"),
        ({"size": (0, 640)}, r"size: got \(0, 640\), expected \(height, width\) of 1 to 100000"),
        ({"size": (480, 10**6)}, "size: got"),
        ({"size": (-480, 640)}, "size: got"),
        ({"size": (480,)}, "size: got"),
        ({"scale": -100.0}, "scale: got -100, expected numbers from 0.1 to 100000"),
        ({"scale": 0.0}, "scale: got 0,"),
        ({"scale": np.inf}, "scale: got NaN or infinity"),
        ({"scale": 1e30}, r"scale: got 1e\+30"),
        ({"translation": 1e9}, r"translation: got 1e\+09, expected numbers from -1e\+06 to 1e\+06"),
        ({"neutral": -1e4}, "neutral: got -10000"),
        ({"displacements": 3e38}, r"displacements: got 3e\+38"),
        ({"rotation": 0.0}, r"rotation: got a matrix that is none \(frame 2\), expected orthogonal"),
        ({"rotation": np.eye(3) * 1.1}, "rotation: got a matrix that is none"),
        ({"rotation": np.diag([1.0, 1.0, -1.0])}, "rotation: got a matrix that is none"),
        ({"rotation": np.full((3, 3), 1e20)}, "rotation: got"),
    )

    def broken(self, track: LandmarkTrack, changes: dict) -> dict:
        """Return the changes with arrays in place of numbers: frame 2 of 5 is wrong, the others are right."""
        made = {}
        for name, value in changes.items():
            right = getattr(track, name)
            made[name] = value
            if isinstance(right, np.ndarray):
                made[name] = right.copy()
                made[name][2 if len(right) == 5 else slice(2, 3)] = value
        return made

    @pytest.mark.parametrize(("changes", "said"), WRONG, ids=str)
    def test_numbers_beyond_any_face(self, changes: dict, said: str) -> None:
        track = make_track()
        with pytest.raises(ValueError, match=f"^track {said}") as caught:
            replace(track, **self.broken(track, changes))
        assert "\n" not in str(caught.value)

    def test_numbers_at_the_edge(self) -> None:
        track = make_track()
        edge = replace(track, fps=Fraction(1000), size=(1, 100_000), scale=np.full(5, 0.1, np.float32))
        assert np.isfinite(edge.points()).all()
        slightly = track.rotation + np.float32(1e-3)
        assert np.array_equal(replace(track, rotation=slightly).rotation, slightly)
        far = replace(
            track, scale=np.full(5, 1e5, np.float32), translation=np.full((5, 3), 1e6, np.float32),
            neutral=np.full((POINTS, 3), 100, np.float32), displacements=np.full((5, POINTS, 3), -100, np.float32),
        )  # fmt: skip
        assert np.isfinite(far.points()).all()

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

    @pytest.mark.parametrize(("changes", "said"), WRONG, ids=str)
    def test_numbers_beyond_any_face_in_a_file(self, tmp_path: Path, changes: dict, said: str) -> None:
        made = self.broken(make_track(), changes)
        if "fps" in made:
            made["fps"] = np.array([made["fps"].numerator, made["fps"].denominator])
        assert re.search(said, self.refused(self.changed(tmp_path, **made)))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [({"fps": np.array([25, 0])}, "track fps: got 25/0, expected 1 to 1000"),
         ({"fps": np.array([29.97, 1])}, "two whole numbers"),
         ({"fps": np.array([np.nan, 1])}, "two whole numbers"),
         ({"fps": np.array([25, 1, 1])}, r"track fps: got \(3,\), expected \(2,\)"),
         ({"fps": np.array(["25", "1"])}, "expected plain numbers"),
         ({"size": np.array([480.5, 640])}, "two whole numbers"),
         ({"scale": np.full(5, 1e300)}, r"track scale: got 1e\+300"),
         ({"scale": np.full(5, 1 + 2j)}, "scale: got complex128, expected plain numbers"),
         ({"scale": np.zeros(5, [("a", "f4")])}, "expected plain numbers"),
         ({"displacements": np.zeros(3)}, "track displacements: got"),
         ({"displacements": np.float32(0)}, "track displacements: got"),
         ({"points": np.zeros((5, 3))}, "track points: got")],
        ids=str,
    )  # fmt: skip
    def test_what_a_file_may_not_hold(self, tmp_path: Path, changes: dict, said: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert re.search(said, self.refused(self.changed(tmp_path, **changes)))

    def test_points_that_somebody_changed(self, tmp_path: Path) -> None:
        """They would be ignored without a word. Those that were only rounded are not changed."""
        track = make_track(2000)
        points = track.points()
        track.save(tmp_path / "good.npz")
        with np.load(tmp_path / "good.npz") as file:
            arrays = dict(file)
        assert same(LandmarkTrack.load(tmp_path / "good.npz"), track)
        for kept in (points.astype(np.float64) + 1e-3, np.asfortranarray(points), None):
            arrays["points"] = kept
            np.savez(tmp_path / "kept.npz", **{name: value for name, value in arrays.items() if value is not None})
            assert same(LandmarkTrack.load(tmp_path / "kept.npz"), track)
        for frame, order in ((1500, "C"), (3, "F")):
            arrays["points"] = np.array(points, order=order)
            arrays["points"][frame, 13, 1] += 2.5
            np.savez(tmp_path / "bad.npz", **arrays)
            message = self.refused(tmp_path / "bad.npz")
            assert f"points: 2.5 px from those of its displacements at frame {frame}: displacements, rot" in message
            assert "leave points out" in message
        arrays["points"] = np.where(np.arange(2000)[:, None, None] == 7, np.nan, points)
        np.savez(tmp_path / "bad.npz", **arrays)
        assert "at frame 7" in self.refused(tmp_path / "bad.npz")

    def claiming(self, tmp_path: Path, name: str, shape: tuple[int, ...], held: bytes = b"") -> Path:
        """Return a track one of whose arrays claims to be larger than what the file holds."""
        make_track().save(tmp_path / "good.npz")
        with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
            for member in good.namelist():
                content = good.read(member)
                if member == f"{name}.npy":
                    header = io.BytesIO()
                    np.lib.format.write_array_header_1_0(
                        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
                    )
                    content = header.getvalue() + held
                bad.writestr(member, content)
        return tmp_path / "bad.npz"

    @pytest.mark.parametrize(
        ("name", "shape"),
        [("displacements", (10**9, POINTS, 3)), ("displacements", (5, POINTS, 3)), ("points", (10**9, POINTS, 3)),
         ("scale", (10**13,)), ("neutral", (POINTS, 3 * 10**12)), ("size", (2**62,)), ("fps", (-1,))],
    )  # fmt: skip
    def test_a_bomb_is_not_read(self, tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
        tracemalloc.start()
        try:
            message = self.refused(self.claiming(tmp_path, name, shape, b"\0" * 100))
            assert name in message
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()

    def test_more_frames_than_a_day_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_track(6).save(tmp_path / "track.npz")
        monkeypatch.setattr("atldiff.types.MAX_FRAMES", 5)
        assert "track frames: got 6, expected at most 5" in self.refused(tmp_path / "track.npz")

    def test_more_than_there_is_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_track(600).save(tmp_path / "track.npz")
        monkeypatch.setattr("atldiff.types._memory", lambda: 10**6)
        assert "track frames: got 600, which take 0.0 GB" in self.refused(tmp_path / "track.npz")

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
        with pytest.raises(ValueError, match=rf"^emotion: got '{word}', expected one of angry, .*neutral$") as caught:
            emotion_label(word)
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
