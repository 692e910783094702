"""Driving videos: tracked, carried to a portrait, offline and streamed, at the door of the command line."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.audio.load import load_audio
from atldiff.checkpoint import save_model
from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.edit import at_fps
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.topology import BROW_LEFT, EYE_LEFT, EYE_RIGHT, LIPS
from atldiff.methods import driving
from atldiff.methods.driving import open_driving, track_video
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, LandmarkTrack, Portrait
from atldiff.video.read import read_frames_at
from atldiff.video.still import read_image
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.models import Model

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FRAMES = 40
"""Frames of the video of the fixture `talking`."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = 25) -> Path:
    frames = list(frames)
    with VideoWriter(path, size=(frames[0].shape[0], frames[0].shape[1]), fps=Fraction(fps)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def pictures(talking: Path) -> list[np.ndarray]:
    return list(read_frames_at(talking))


@pytest.fixture(scope="module")
def faceless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), np.uint8)
    return write_video(tmp_path_factory.mktemp("faceless") / "noise.mp4", noise)


@pytest.fixture(scope="module")
def track(talking: Path) -> LandmarkTrack:
    return track_video(talking)


@pytest.fixture(scope="module")
def lively(track: LandmarkTrack) -> LandmarkTrack:
    """A driver that turns its head, lifts its brows, closes its eyes and speaks."""
    random = np.random.default_rng(1)
    frames = 18
    displacements = np.zeros((frames, 478, 3), np.float32)
    displacements[:, EYE_LEFT, 1] = random.normal(0, 0.01, (frames, 1))
    displacements[:, BROW_LEFT, 1] = -0.05
    displacements[:, LIPS, 1] = random.normal(0, 0.1, (frames, 1))
    yaw = np.linspace(0, 5, frames)
    return replace(
        track.slice(0, frames),
        displacements=displacements,
        rotation=rotation_from_euler(yaw, 0 * yaw, 0 * yaw).astype(np.float32),
    )


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    image = read_image(EXAMPLES / "portrait.jpg")
    from atldiff.landmarks.detect import detect
    from atldiff.methods.portrait import resized

    return resized(Portrait(image, detect(image)), 256)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(EXAMPLES / "speech.wav").samples[: 60 * 640 + 77]


@pytest.fixture(scope="module")
def head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


class TestTracking:
    def test_a_video_s_face_over_time(self, track: LandmarkTrack, talking: Path, pictures: list[np.ndarray]) -> None:
        assert (len(track), track.fps, track.size) == (FRAMES, 25, pictures[0].shape[:2])
        with FaceTracker() as tracker:
            seen = np.stack([tracker.track(picture) for picture in pictures])  # type: ignore[arg-type]
        assert np.abs(track.points() - seen).mean() < 0.5  # pixels: only the pose is smoothed
        closed = track.displacements[:, LIPS].std(axis=0).mean()
        assert 0 < closed < 0.05
        assert np.allclose(track.rotation @ track.rotation.swapaxes(1, 2), np.eye(3), atol=1e-5)

    def test_the_pose_does_not_tremble(self, tmp_path: Path, pictures: list[np.ndarray]) -> None:
        random = np.random.default_rng(2)
        shaken = [np.roll(pictures[0], random.integers(-3, 4, 2), (0, 1)) for _ in range(16)]
        moved = track_video(write_video(tmp_path / "shaken.mp4", shaken)).translation[:, :2]
        assert np.diff(moved, axis=0).std() < 0.5 * np.sqrt(8)  # each step is of two draws, of variance 4

    def test_other_frame_rates(self, tmp_path: Path, pictures: list[np.ndarray]) -> None:
        path = write_video(tmp_path / "fast.mp4", pictures[:20], fps=50)
        assert len(track_video(path)) == 10

    def test_frames_without_a_face_are_interpolated(self, tmp_path: Path, pictures: list[np.ndarray]) -> None:
        gone = [0, 7, 8, 15]
        blank = np.full_like(pictures[0], 90)
        shown = [blank if index in gone else pictures[0 if index < 8 else 30] for index in range(16)]
        track = track_video(write_video(tmp_path / "gaps.mp4", shown))
        assert len(track) == 16
        whole = track_video(write_video(tmp_path / "whole.mp4", [pictures[0 if i < 8 else 30] for i in range(16)]))
        assert np.abs(track.points() - whole.points()).max() < 6
        points = [None if index in gone else np.full((478, 3), index, np.float32) for index in range(16)]
        filled = driving._filled(points, np.array([each is not None for each in points]))
        assert np.allclose(filled[:, 0, 0], [1, *range(1, 15), 14])

    def test_progress_and_memory(self, talking: Path) -> None:
        told: list[tuple[int, int]] = []
        track_video(talking, progress=lambda done, total: told.append((done, total)))
        assert told == [(index + 1, FRAMES) for index in range(FRAMES)]

    def test_no_face(self, faceless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        real = driving.read_frames_at
        monkeypatch.setattr(driving, "read_frames_at", lambda *a: (seen.append(1) or f for f in real(*a)))
        with pytest.raises(FaceNotFound, match=r"^driving video .*noise.mp4: no face found in its first 50 frames; .*"):
            track_video(faceless)
        assert len(seen) == 50  # and no further

    def test_too_few_faces(self, tmp_path: Path, pictures: list[np.ndarray]) -> None:
        blank = np.full_like(pictures[0], 90)
        path = write_video(tmp_path / "few.mp4", [*pictures[:6], *[blank] * 10])
        with pytest.raises(
            FaceNotFound, match=r"a face in [4-7] of 16 frames, expected at least half of them"
        ) as error:
            track_video(path)
        assert "\n" not in str(error.value)

    def test_no_video(self, tmp_path: Path) -> None:
        for path, message in (
            (EXAMPLES / "portrait.jpg", "got a file without moving pictures, expected a video"),
            (EXAMPLES / "speech.wav", "got a file without moving pictures, expected a video"),
            (tmp_path / "none.mp4", "no such file"),
            (tmp_path, "got a folder"),
        ):
            with pytest.raises(MediaError, match=rf"^driving video .*: {message}") as error:
                track_video(path)
            assert "\n" not in str(error.value)


class TestOpening:
    def test_a_video_a_file_and_a_track_are_the_same(self, track: LandmarkTrack, talking: Path, tmp_path: Path) -> None:
        track.save(tmp_path / "track.npz")
        for source in (talking, str(talking), tmp_path / "track.npz", track):
            opened = open_driving(source, Controls())
            assert opened.displacements.tobytes() == track.displacements.tobytes()
            assert opened.rotation.tobytes() == track.rotation.tobytes()

    def test_a_track_of_another_rate(self, track: LandmarkTrack) -> None:
        opened = open_driving(replace(track, fps=Fraction(50)), Controls())
        assert (opened.fps, len(opened)) == (25, FRAMES // 2)
        assert np.array_equal(opened.displacements, track.displacements[::2])
        slow = replace(track, fps=Fraction(30000, 1001))
        assert len(open_driving(slow, Controls())) == len(at_fps(slow, Fraction(25)))

    def test_what_is_refused(self, track: LandmarkTrack, tmp_path: Path) -> None:
        (tmp_path / "bad.npz").write_bytes(b"bytes")
        for source, controls, message in (
            (track, Controls(still=True), "still: got it with a driving track"),
            (tmp_path / "none.mp4", Controls(still=True), "still: got it"),  # before anything is opened
            (track.slice(0, 0), Controls(), "driving track: got no frames, expected at least one"),
            (tmp_path / "bad.npz", Controls(), "landmark track .*bad.npz: "),
            (3, Controls(), "driving: got int, expected a path or a LandmarkTrack"),
        ):
            with pytest.raises(ValueError, match=f"^{message}") as error:
                open_driving(source, controls)  # type: ignore[arg-type]
            assert "\n" not in str(error.value)


class TestTracks:
    def test_head_and_eyes_are_the_driver_s_and_the_lips_the_sound_s(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, lively: LandmarkTrack
    ) -> None:
        still = head.landmarks(portrait, speech, controls=Controls(still=True, blink_rate_hz=0))
        driven = head.landmarks(portrait, speech, driving=lively)
        assert len(driven) == len(still) == 61
        last = len(lively) - 1
        order = last - np.abs(np.arange(61) % (2 * last) - last)
        moved = driven.displacements - still.displacements
        assert not moved[:, LIPS].any()
        assert np.allclose(moved[:, BROW_LEFT, 1], -0.05, atol=1e-6)
        assert not moved[:, EYE_RIGHT].any()
        eye = moved[:, EYE_LEFT[3], 1]
        assert np.corrcoef(eye, lively.displacements[order, EYE_LEFT[3], 1])[0, 1] > 0.999
        turned = still.rotation[0].astype(np.float64).T @ driven.rotation
        assert np.allclose(euler_degrees(turned)[:, 0], np.linspace(0, 5, 18)[order], atol=0.05)
        assert np.abs(np.diff(euler_degrees(turned)[:, 0])).max() < 1  # nothing jumps

    def test_controls_of_the_motion_model_do_not_matter(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, lively: LandmarkTrack
    ) -> None:
        tracks = [
            head.landmarks(portrait, speech[:6400], controls=controls, driving=lively)
            for controls in (Controls(), Controls(blink_rate_hz=2, head_motion=3, seed=9))
        ]
        assert tracks[0].points().tobytes() == tracks[1].points().tobytes()

    def test_another_output_rate(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, lively: LandmarkTrack
    ) -> None:
        plain = head.landmarks(portrait, speech, driving=lively)
        assert np.array_equal(
            head.landmarks(portrait, speech, driving=lively, fps=50).rotation[::2][:61], plain.rotation
        )

    def test_still_is_refused(self, head: TalkingHead, portrait: Portrait, lively: LandmarkTrack) -> None:
        sound, still = np.zeros(640, np.float32), Controls(still=True)
        for call in (
            lambda: head.landmarks(portrait, sound, controls=still, driving=lively),
            lambda: head(portrait, sound, controls=still, driving=lively),
            lambda: next(head.stream(portrait, [sound], controls=still, driving=lively)),
        ):
            with pytest.raises(ValueError, match="^still: got it with a driving track"):
                call()


def test_streaming_in_random_packets_equals_the_offline_call(
    random_any_model: Model, portrait: Portrait, speech: np.ndarray, talking: Path, track: LandmarkTrack
) -> None:
    head = TalkingHead(random_any_model, device="cpu", dtype="float32")
    video = head(portrait, speech, driving=talking)
    offline = np.stack(list(video))
    assert len(offline) == 61  # longer than the driver
    cuts = np.sort(np.random.default_rng(3).integers(0, len(speech), 17))
    streamed = np.stack(list(head.stream(portrait, np.split(speech, cuts), driving=track)))
    assert (streamed == offline).all()
    plain = np.stack(list(head(portrait, speech[:6400], controls=Controls(still=True, blink_rate_hz=0))))
    assert (plain != offline[:10]).any()


@pytest.fixture(scope="module")
def weights(random_model: ATLModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("driving") / "weights"
    save_model(random_model, folder, half=False)
    return str(folder)


class TestCommandLine:
    def test_bad_drivers_stop_at_the_door(
        self,
        tmp_path: Path,
        faceless: Path,
        talking: Path,
        track: LandmarkTrack,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("atldiff.pipeline.TalkingHead.from_pretrained", lambda *a, **b: pytest.fail("loaded"))
        (tmp_path / "bad.npz").write_bytes(b"bytes")
        track.save(tmp_path / "in.npz")
        inputs = [str(EXAMPLES / "portrait.jpg"), str(EXAMPLES / "speech.wav")]
        out = ["-o", str(tmp_path / "out.npz")]
        source = SimpleNamespace(closed=False, isatty=lambda: False, buffer=io.BytesIO(b"\0\0" * 640))
        monkeypatch.setattr(sys, "stdin", source)
        for options, message in (
            (["--driving-video", str(tmp_path / "none.mp4")], "none.mp4: no such file"),
            (["--driving-video", str(EXAMPLES / "portrait.jpg")], "portrait.jpg: got a file without moving pictures"),
            (["--driving-video", str(faceless)], "no face found in its first 50 frames"),
            (["--driving", str(tmp_path / "none.npz")], "none.npz: no such file"),
            (["--driving_video", str(tmp_path / "bad.npz")], "bad.npz: "),
            (["--driving-video", str(talking), "--still"], "still: got it with a driving track"),
        ):
            stdin = [inputs[0], "--stdin", "-o", str(tmp_path / "out.mp4")]
            for command in (["generate", *inputs, *out], ["landmarks", *inputs, *out], ["generate", *stdin]):
                assert cli.run([*command, *options, "--quiet"]) == 2
                said = capsys.readouterr()
                assert message in said.err
                assert (said.out, said.err.count("\n")) == ("", 1)
        driver = ["--driving-video", str(tmp_path / "in.npz"), "--quiet"]
        for command in (
            ["generate", *inputs, "-o", str(tmp_path / "in.npz")],
            ["generate", *inputs, *out, "--landmarks", str(tmp_path / "in.npz")],
            ["landmarks", *inputs, "-o", str(tmp_path / "in.npz")],
        ):
            assert cli.run([*command, *driver]) == 2
            assert "would replace the input" in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "in.npz"]

    def test_tracks_and_videos(
        self, tmp_path: Path, weights: str, talking: Path, track: LandmarkTrack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        head = TalkingHead.from_pretrained(weights, device="cpu")
        wanted = head.landmarks(EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav", driving=talking)
        track.save(tmp_path / "driver.npz")
        inputs = [str(EXAMPLES / "portrait.jpg"), str(EXAMPLES / "speech.wav"), "--weights", weights, "--device", "cpu"]
        for number, (command, driver) in enumerate(
            (("generate", talking), ("landmarks", talking), ("landmarks", tmp_path / "driver.npz"))
        ):
            out = tmp_path / f"{number}.npz"
            assert cli.run([command, *inputs, "-o", str(out), "--driving-video", str(driver), "--json"]) == 0
            assert LandmarkTrack.load(out).points().tobytes() == wanted.points().tobytes()
            assert "driving" in json.loads(capsys.readouterr().out)["seconds"]

    def test_a_live_stream(
        self,
        tmp_path: Path,
        weights: str,
        talking: Path,
        speech: np.ndarray,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        samples = np.rint(speech[:8000] * 32767).astype("<i2")
        source = SimpleNamespace(closed=False, isatty=lambda: False, buffer=io.BytesIO(samples.tobytes()))
        monkeypatch.setattr(sys, "stdin", source)
        args = ["generate", str(EXAMPLES / "portrait.jpg"), "--stdin", "--weights", weights, "--device", "cpu"]
        args += ["--dtype", "float32", "--driving-video", str(talking), "--size", "128", "--quiet"]
        assert cli.run([*args, "-o", f"{tmp_path / 'frames'}/"]) == 0
        head = TalkingHead.from_pretrained(weights, device="cpu", dtype="float32")
        wanted = list(head(EXAMPLES / "portrait.jpg", samples / np.float32(32768), driving=talking, size=128))
        got = [read_image(path) for path in sorted((tmp_path / "frames").glob("*.png"))]
        assert np.array_equal(np.stack(got), np.stack(wanted))
