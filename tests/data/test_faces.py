"""Whole faces of prepared clips: where pictures and landmarks lie, and that they are of one moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atldiff.audio.load import load_audio
from atldiff.data.clip import RECORD_FORMAT, ClipRecord, prepare_clip
from atldiff.data.faces import load_faces
from atldiff.data.manifest import Manifest, ManifestEntry, Split
from atldiff.data.speech import in_step, load_samples, load_speech
from atldiff.data.synthetic import make_synthetic
from atldiff.emotions import EMOTIONS
from atldiff.errors import DataError
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.timebase import SAMPLES_PER_FRAME
from atldiff.video.read import read_frames
from atldiff.video.window import STORED_FACE_SIDE, apply, extract, face_window, fit_still_window

INDICES = np.array([4, 33, 263, 152])
FRAMES = 20


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("drawn"), people=3, clips=1, frames=FRAMES)


@pytest.fixture(scope="module")
def filmed(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A video with sound, prepared by the tracker."""
    folder = tmp_path_factory.mktemp("filmed")
    (folder / "clips").mkdir()
    with FaceTracker() as tracker:
        record = prepare_clip(talking, talking.name, "talking", folder / "clips", tracker)
    return Manifest((ManifestEntry(replace(record, emotion="sad"), "someone", Split.TRAIN),), folder)


class TestPrepared:
    """What `atldiff prepare` keeps for the published method."""

    def test_faces_are_the_video_s_in_one_still_window(self, filmed: Manifest, talking: Path) -> None:
        (entry,) = filmed.entries
        tensors = load_file(filmed.tensors(entry))
        assert entry.record.format == RECORD_FORMAT
        matrix = tensors["face_matrix"]
        assert matrix.shape == (2, 3)
        assert matrix.dtype == np.float32
        assert np.allclose(matrix, fit_still_window(tensors["points"], face_window(STORED_FACE_SIDE)), atol=1e-3)
        assert tensors["faces"].dtype == np.uint8
        assert len(tensors["face_sizes"]) == entry.record.frames
        clip = load_faces(filmed, entry, INDICES)
        video = list(read_frames(talking))
        shown = clip.pictures(np.arange(entry.record.frames))
        for frame in (0, 7, entry.record.frames - 1):
            cut = extract(video[entry.record.start + frame], matrix.astype(np.float64), STORED_FACE_SIDE)
            assert np.abs(cut.astype(int) - shown[frame]).mean() < 2.5  # JPEG of quality 95

    def test_landmarks_lie_on_the_face(self, filmed: Manifest) -> None:
        (entry,) = filmed.entries
        clip = load_faces(filmed, entry, INDICES)
        assert clip.points.min() > 0
        assert clip.points.max() < STORED_FACE_SIDE - 1
        eyes = np.linalg.norm(clip.points[:, 2] - clip.points[:, 1], axis=-1)
        assert np.abs(eyes - 41).max() < 5
        with FaceTracker() as tracker:
            seen = tracker.track(cv2.resize(clip.pictures(np.array([5]))[0], None, fx=2, fy=2))
        assert seen is not None
        assert np.abs((seen[INDICES, :2] - 0.5) / 2 - clip.points[5]).max() < 5

    def test_samples_are_the_sound_of_the_frames(self, filmed: Manifest, talking: Path) -> None:
        (entry,) = filmed.entries
        samples = load_file(filmed.tensors(entry))["samples"]
        assert samples.dtype == np.int16
        assert samples.shape == (SAMPLES_PER_FRAME * entry.record.frames,)
        sound = load_audio(talking).samples[entry.record.start * SAMPLES_PER_FRAME :]
        count = min(len(sound), len(samples))
        assert count > SAMPLES_PER_FRAME * (entry.record.frames - 2)
        assert np.abs(samples[:count] / 32767 - sound[:count]).max() < 1e-4
        assert np.abs(samples).max() > 1000

    def test_samples_follow_the_lag_that_is_corrected(self, filmed: Manifest) -> None:
        (entry,) = filmed.entries
        clip = load_speech(filmed, entry)
        assert clip is not None
        whole = load_samples(filmed, clip)
        for shift in (2, -3, 0):
            moved = in_step(clip, shift)
            samples = load_samples(filmed, moved)
            assert len(samples) == SAMPLES_PER_FRAME * len(moved)
            first = 0 if shift >= 0 else -shift * SAMPLES_PER_FRAME
            assert np.array_equal(samples, whole[first : first + len(samples)])


class TestLoadFaces:
    def test_shapes(self, drawn: Manifest) -> None:
        entry = drawn.entries[0]
        clip = load_faces(drawn, entry, INDICES)
        assert len(clip) == FRAMES
        assert (clip.name, clip.source, clip.identity) == ("person0-0", "synthetic", "person0")
        assert clip.points.shape == (FRAMES, 4, 2)
        assert clip.mouth.shape == (FRAMES, 20, 2)
        assert clip.points.dtype == clip.mouth.dtype == np.float32
        assert clip.offsets[0] == 0
        assert clip.offsets[-1] == len(load_file(drawn.tensors(entry))["faces"])

    def test_points_are_those_asked_for(self, drawn: Manifest) -> None:
        entry = drawn.entries[1]
        clip, mouth = load_faces(drawn, entry, INDICES), load_faces(drawn, entry, LIPS_INNER)
        tensors = load_file(drawn.tensors(entry))
        wanted = apply(tensors["face_matrix"].astype(np.float64), tensors["points"][:, INDICES, :2])
        assert np.allclose(clip.points, wanted, atol=1e-3)
        assert np.array_equal(mouth.points, clip.mouth)

    def test_pictures_come_in_the_order_asked_for(self, drawn: Manifest) -> None:
        clip = load_faces(drawn, drawn.entries[0], INDICES)
        every = clip.pictures(np.arange(FRAMES))
        assert every.shape == (FRAMES, STORED_FACE_SIDE, STORED_FACE_SIDE, 3)
        assert every.dtype == np.uint8
        assert (every[0] != every[FRAMES // 2]).any()
        order = np.array([7, 0, FRAMES - 1, 7])
        assert np.array_equal(clip.pictures(order), every[order])
        assert clip.pictures(order[:0]).shape == (0, STORED_FACE_SIDE, STORED_FACE_SIDE, 3)

    def test_pictures_and_landmarks_are_of_one_moment(self, drawn: Manifest) -> None:
        """The cavity of the drawn mouth is dark: at its centre, and only while it is open."""
        clip = load_faces(drawn, drawn.entries[0], INDICES)
        pictures = clip.pictures(np.arange(FRAMES)).astype(float)
        gap = clip.mouth[:, 10:].mean(axis=(1,))[:, 1] - clip.mouth[:, :10].mean(axis=1)[:, 1]
        centre = np.rint(clip.mouth.mean(axis=1)).astype(int)
        level = np.array([p[y - 1 : y + 2, x - 1 : x + 2].mean() for p, (x, y) in zip(pictures, centre, strict=True)])
        assert np.ptp(np.abs(gap)) > 1
        assert np.corrcoef(np.abs(gap), level)[0, 1] < -0.6

    def test_red_is_red(self, drawn: Manifest) -> None:
        """Lips are drawn redder than green and blue: channels are not swapped on the way."""
        clip = load_faces(drawn, drawn.entries[0], np.array([0, 17]))
        x, y = np.rint(clip.points[0, 0]).astype(int)  # the upper lip
        red, green, blue = clip.pictures(np.array([0]))[0, y, x].astype(int)
        assert red > green + 20
        assert red > blue + 20

    @pytest.mark.parametrize("emotion", ["", *EMOTIONS])
    def test_the_label_is_the_record_s(self, drawn: Manifest, emotion: str) -> None:
        entry = drawn.entries[0]
        labelled = replace(entry, record=replace(entry.record, emotion=emotion))
        wanted = EMOTIONS.index(emotion) if emotion in EMOTIONS else len(EMOTIONS)
        assert load_faces(drawn, labelled, INDICES).emotion == wanted

    def test_a_clip_prepared_before_is_an_error(self, drawn: Manifest, tmp_path: Path) -> None:
        tensors = load_file(drawn.tensors(drawn.entries[0]))
        (tmp_path / "clips").mkdir()
        old = ManifestEntry(ClipRecord(path="a.mp4", name="old", frames=FRAMES), "a", Split.TRAIN)
        save_file(
            {k: v for k, v in tensors.items() if not k.startswith("face")}, tmp_path / "clips" / "old.safetensors"
        )
        with pytest.raises(
            DataError, match=r"old\.safetensors: no whole faces; .*run `atldiff prepare` again"
        ) as caught:
            load_faces(Manifest((old,), tmp_path), old, INDICES)
        assert "\n" not in str(caught.value)
