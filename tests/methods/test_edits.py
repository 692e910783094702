"""Edits of a track: what may be asked for, the order in which it is done, and that files of tracks change nothing."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest

from atldiff.errors import MediaError
from atldiff.landmarks.blink import eye_opening, find_blinks
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler, to_canonical
from atldiff.landmarks.operations.eyes import with_blinks
from atldiff.landmarks.operations.head import Keyframe, Pose, keyed_head
from atldiff.landmarks.operations.mixing import in_step
from atldiff.landmarks.operations.mouth import jaw_strength, lip_strength, met
from atldiff.landmarks.operations.timing import delayed
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import EYE_LEFT, LIPS
from atldiff.methods.edits import Edits, TrackEdits, edited, heard_gate, keyframes
from atldiff.methods.fitting import fitted, shape_and_pose
from atldiff.methods.landmark_preview import draw_landmarks, write_preview
from atldiff.types import Controls, LandmarkTrack, Portrait
from made_tracks import apart, openings, same, speaking, still

if TYPE_CHECKING:
    from atldiff.methods.atl.network import ATLModel
    from atldiff.pipeline import TalkingHead

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def turns(track: LandmarkTrack) -> np.ndarray:
    rotation = track.rotation.astype(np.float64)
    return euler_degrees(rotation[0].T @ rotation)


class TestApplying:
    def test_nothing_asked_for_is_nothing_done(self) -> None:
        track = speaking()
        assert edited(track, Edits()) is track
        assert edited(track, TrackEdits()) is track
        assert len(edited(speaking(0), Edits(jaw_strength=2))) == 0

    def test_one_edit_is_its_operation(self, tmp_path: Path) -> None:
        track, other = speaking(), speaking(60, seed=1, turn_deg=9)
        other.save(tmp_path / "other.json")
        for edits, wanted in (
            (Edits(jaw_strength=1.5), jaw_strength(track, 1.5)),
            (Edits(lip_strength=0.5), lip_strength(track, 0.5)),
            (Edits(av_offset=-60), delayed(track, -60)),
            (Edits(head="0:0,0,0 2:10,-5,0"), keyed_head(track, [Keyframe(0), Keyframe(2, 10, -5, 0)])),
        ):
            assert same(edited(track, edits), met(wanted)), edits
        mixed = edited(track, Edits(mix=str(tmp_path / "other.json"), mix_regions="eyes"))
        wanted = in_step(track, other)
        assert np.abs(mixed.displacements - wanted.displacements)[:, EYE_LEFT].max() < 1e-6
        assert np.array_equal(mixed.rotation, track.rotation)
        head = edited(track, Edits(head=str(tmp_path / "other.json")))
        assert np.allclose(turns(head), turns(wanted), atol=0.01)

    def test_the_order(self) -> None:
        """A new head is not late, its eyes look where they are told, and blinks stand at their seconds, unsmoothed."""
        track = speaking()
        made = edited(
            track, Edits(av_offset=200, head="0:0 2:10", gaze="camera", blink_times="2.0", smooth="savgol:15,2")
        )
        assert turns(made)[50, 0] == pytest.approx(10, abs=0.01)
        opening = eye_opening(made.neutral + made.displacements)
        assert [blink.frame for blink in find_blinks(opening)] == [50]
        assert opening[50] < 0.1 * np.median(opening)
        assert np.ptp(made.displacements[:, 468, 0]) > 0.01

    def test_limits_come_last(self) -> None:
        track = speaking()
        wild = edited(track, TrackEdits(jaw_strength=3, expression_scale=3, head="0:0 1:60,-30,40", limits=True))
        assert openings(wild).max() <= 0.4 + 1e-4
        assert (np.abs(turns(wild)).max(axis=0) <= [14.01, 12.01, 25.01]).all()

    def test_edits_of_a_track(self) -> None:
        track = speaking()
        assert len(edited(track, TrackEdits(speed=2.0))) == 50
        held = edited(track, TrackEdits(still=True))
        assert np.abs(turns(held)).max() < 1e-3
        assert len(find_blinks(eye_opening(held.neutral + held.displacements))) == 2
        assert np.abs(turns(edited(track, TrackEdits(head_motion=0.5)))).max() == pytest.approx(3, abs=0.1)
        often = edited(speaking(500), TrackEdits(blink_rate_hz=1.0), seed=2)
        assert 12 <= len(find_blinks(eye_opening(often.neutral + often.displacements))) <= 28
        none = edited(track, Edits(blink_times="none"))
        assert find_blinks(eye_opening(none.neutral + none.displacements)) == []

    @pytest.mark.parametrize("style", ["calm", "natural", "lively"])
    def test_a_head_in_a_style(self, style: str) -> None:
        track = still(150, 30)
        moved = edited(track, Edits(head=style), seed=3)
        assert (len(moved), moved.fps) == (150, 30)
        assert 1 < np.ptp(turns(moved), axis=0).max() < 50
        assert same(moved, edited(track, Edits(head=style), seed=3))
        assert not same(moved, edited(track, Edits(head=style), seed=4))

    def test_a_head_turned_further_than_shown_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "atldiff"):
            edited(still(), Edits(head="0:0 1:14,12,25"))
            assert not caplog.records
            edited(still(), Edits(head="0:0 1:30"))
        assert "head: turns by up to 30, 0, 0 degrees" in caplog.text

    def test_from_the_portrait_s_pose(self) -> None:
        pose = Pose(rotation_from_euler(np.array(5.0), np.array(0.0), np.array(0.0)), 80.0, np.array([200.0, 180, 0]))
        made = edited(speaking(), Edits(head="0:10"), portrait=pose)
        assert euler_degrees(made.rotation)[:, 0] == pytest.approx(15, abs=0.01)


class TestAsking:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"av_offset": 20_000}, "av_offset: got 20000, expected -10000 to 10000"),
            ({"lip_strength": -1}, "lip_strength: got -1, expected 0 to 3"),
            ({"jaw_strength": np.nan}, "jaw_strength: got nan"),
            ({"speed": 0}, "speed: got 0, expected 0.1 to 10"),
            ({"head_motion": 4}, "head_motion: got 4, expected 0 to 3"),
            ({"blink_rate_hz": 3}, "blink_rate_hz: got 3, expected 0 to 2"),
            ({"expression_scale": -1}, "expression_scale: got -1"),
            ({"smoothing_frames": np.inf}, "smoothing_frames: got inf"),
            ({"gaze": "left"}, "gaze: got 'left', expected camera, or YAW,PITCH"),
            ({"gaze": "50,0"}, "gaze: got '50,0', expected -45 to 45 degrees"),
            ({"gaze": "1,x"}, "gaze: got 'x', expected a number"),
            ({"blink_times": ""}, "blink_times: got '', expected seconds from 0 on"),
            ({"blink_times": "1,-2"}, "blink_times: got '1,-2'"),
            ({"smooth": "median"}, "smooth: got 'median', expected one-euro"),
            ({"smooth": "savgol:8"}, "smooth: got a window of 8"),
            ({"smooth": "one-euro:1,2,3"}, "smooth: got 'one-euro:1,2,3'"),
            ({"mix_regions": "chin"}, "mix_regions: got 'chin', expected lips"),
            ({"mix_regions": "lips=2"}, "mix_regions: got lips=2, expected 0 to 1"),
            ({"head": "0:1,2,3,4"}, "head: got '0:1,2,3,4' in"),
            ({"head": "5"}, "head: got '5' in '5', expected keyframes"),
            ({"head": "1:0 0:0"}, "head: got keyframes at 1, 0 s, expected times that grow"),
            ({"head": "0:100"}, "head: got a yaw of 100"),
            ({"still": True, "head": "0:0"}, "still: got it with a head pose"),
            ({"blink_rate_hz": 1, "blink_times": "1"}, "blink_times: got it with blink_rate_hz"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, settings: dict, said: str) -> None:
        with pytest.raises(ValueError, match="^" + said.replace("(", r"\(")) as caught:
            TrackEdits(**settings)
        assert "\n" not in str(caught.value)

    def test_files_are_looked_for(self, tmp_path: Path) -> None:
        (tmp_path / "keys.json").write_text('[{"seconds": 0, "tilt": 3}]', encoding="utf-8")
        for settings, said in (
            ({"mix": str(tmp_path / "none.npz")}, "mix: landmark track .*none.npz: no such file"),
            ({"mix": str(EXAMPLES / "speech.wav")}, "got a file without moving pictures"),
            ({"head": str(tmp_path / "none.mp4")}, "no such file"),
            ({"head": "calmly"}, "head: got 'calmly', expected keyframes"),
            ({"head": str(tmp_path / "keys.json")}, 'keys.json: got {"seconds": 0, "tilt": 3}, expected objects'),
        ):
            with pytest.raises((ValueError, MediaError), match=said):
                Edits(**settings).check_files()
        Edits(head="calm").check_files()
        Edits(head="0:1 2:3").check_files()

    def test_keyframes(self, tmp_path: Path) -> None:
        assert keyframes("0:10 1.5:-3,4 2:1,2,-3") == [(0, 10, 0, 0), (1.5, -3, 4, 0), (2, 1, 2, -3)]
        rows = [{"seconds": 0, "yaw": 10}, {"seconds": 1.5, "yaw": -3, "pitch": 4}, {"seconds": 2, "roll": -3}]
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(rows), encoding="utf-8-sig")
        assert keyframes(str(path)) == [(0, 10, 0, 0), (1.5, -3, 4, 0), (2, 0, 0, -3)]
        speaking(3).save(tmp_path / "track.json")
        assert keyframes(str(tmp_path / "track.json")) is None
        path.write_text("[" + " " * 2_000_000, encoding="utf-8")
        with pytest.raises(ValueError, match="expected at most 1000000"):
            keyframes(str(path))
        path.write_text("[{", encoding="utf-8")
        with pytest.raises(ValueError, match="no JSON"):
            keyframes(str(path))


class TestFitting:
    def portrait(self, shape: np.ndarray) -> Portrait:
        points = 90 * shape @ rotation_from_euler(np.array(6.0), np.array(3.0), np.array(-2.0)).T + [150, 140, 0]
        return Portrait(np.zeros((320, 300, 3), np.uint8), points.astype(np.float32))

    def test_its_own_track_stays(self) -> None:
        portrait = self.portrait(still(1).neutral.astype(np.float64))
        shape, pose = shape_and_pose(portrait)
        own = replace(speaking(5), neutral=shape, size=portrait.size)
        assert fitted(own, portrait) is own
        assert np.allclose(to_canonical(portrait.landmarks.astype(np.float64), mean_shape())[1], pose.rotation)

    def test_another_face_s_blinks_close_these_eyes_and_the_head_moves_from_here(self) -> None:
        wide = still(1).neutral.astype(np.float64)
        wide[[159, 158, 160, 386, 385, 387, 161, 157, 388, 384], 1] -= 0.03
        portrait = self.portrait(wide)
        track = with_blinks(speaking(blinks=()), [2.0])
        carried = fitted(track, portrait)
        assert carried.size == (320, 300)
        opening = eye_opening(carried.neutral + carried.displacements)
        assert opening[50] < 0.12 * opening[20]
        assert np.allclose(turns(carried), turns(track), atol=0.02)
        assert carried.scale[0] == pytest.approx(shape_and_pose(portrait)[1].scale)

    def test_an_open_portrait_closes_as_the_basis_says(self) -> None:
        basis = np.zeros((1, 478, 3), np.float32)
        from atldiff.landmarks.operations.regions import jaw_weights

        basis[0, :, 1] = 0.05 * jaw_weights()
        portrait = self.portrait(mean_shape())  # its lips are apart
        track = speaking()
        opened, closed = fitted(track, portrait), fitted(track, portrait, basis)
        assert openings(opened).min() > 0.06
        assert openings(closed).min() < 0.03
        assert np.ptp(openings(closed)) == pytest.approx(np.ptp(openings(track)), rel=0.2)


@pytest.fixture(scope="module")
def head(random_model: ATLModel) -> TalkingHead:
    from atldiff.pipeline import TalkingHead

    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def portrait(head: TalkingHead) -> Portrait:
    from atldiff.methods.portrait import resized

    return resized(head.open_portrait(EXAMPLES / "portrait.jpg"), 200)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    from atldiff.audio.load import load_audio

    return load_audio(EXAMPLES / "speech.wav").samples[: 20 * 640]


class TestPipeline:
    @pytest.mark.parametrize("suffix", [".npz", ".json"])
    def test_export_import_render_is_the_direct_video(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, tmp_path: Path, suffix: str
    ) -> None:
        edits = Edits(jaw_strength=1.3, head="0:0 0.5:8", gaze="camera", blink_times="0.3")
        direct = list(head(portrait, speech, edits=edits))
        head.landmarks(portrait, speech, edits=edits).save(tmp_path / f"edited{suffix}")
        head.landmarks(portrait, speech).save(tmp_path / f"plain{suffix}")
        edited_file = head.render(portrait, LandmarkTrack.load(tmp_path / f"edited{suffix}"), audio=speech)
        plain_file = head.render(portrait, LandmarkTrack.load(tmp_path / f"plain{suffix}"), audio=speech, edits=edits)
        plain = list(head(portrait, speech))
        assert (np.stack(list(edited_file)) == np.stack(direct)).all()
        assert (np.stack(list(plain_file)) == np.stack(direct)).all()
        assert (np.stack(direct) != np.stack(plain)).any()

    def test_a_preview_is_beside_the_very_frames(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, tmp_path: Path
    ) -> None:
        plain, video = list(head(portrait, speech)), head(portrait, speech, preview=True)
        height, width = portrait.size
        assert video.size == (height, 2 * width)
        frames = np.stack(list(video))
        assert (frames[:, :, :width] == np.stack(plain)).all()
        assert np.ptp(frames[:, :, width:].astype(int), axis=0).max() > 100  # its lines move
        video.save(tmp_path / "out.mp4")
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (2 * width + 2 * width % 2, height + height % 2)
        assert video.written.frames == 20


class TestPreview:
    def test_lines_lie_on_the_landmarks(self, portrait: Portrait) -> None:
        picture = np.zeros_like(portrait.image)
        drawn = draw_landmarks(picture, portrait.landmarks)
        assert not picture.any()
        lines = drawn.max(axis=2) > 60
        x, y = np.rint(portrait.landmarks[np.r_[LIPS[:20], EYE_LEFT, 10, 152], :2]).astype(int).T
        grown = cv2.dilate(lines.astype(np.uint8), np.ones((3, 3)))
        assert grown[y, x].all()
        assert lines.mean() < 0.25
        assert len(np.unique(drawn)) > 50  # soft edges
        far = draw_landmarks(picture, portrait.landmarks + np.float32(1e9))
        assert not far.any()

    def test_videos_and_pictures(self, portrait: Portrait, tmp_path: Path) -> None:
        track = fitted(speaking(8), portrait)
        write_preview(tmp_path / "p.mp4", track, portrait.image)
        with av.open(str(tmp_path / "p.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 8
        write_preview(tmp_path / "p.png", track, (portrait.image for _ in range(8)))
        assert cv2.imread(str(tmp_path / "p.png")).shape == portrait.image.shape
        with pytest.raises(MediaError, match="without frames"):
            write_preview(tmp_path / "q.mp4", track.slice(0, 0), portrait.image)


class TestSilence:
    def test_a_recording_that_ends_in_silence(self, head: TalkingHead, portrait: Portrait, speech: np.ndarray) -> None:
        """On both paths lips are open by less than 2 % of their range 200 ms after the last word."""
        from atldiff.audio.load import load_audio

        spoken = load_audio(EXAMPLES / "speech.wav").samples[:48_000]
        last = int(np.flatnonzero(np.abs(spoken) > 0.02)[-1]) // 640 + 1
        samples = np.concatenate([spoken[: last * 640], np.zeros(32_000, np.float32)])
        tracks = {
            "generate": head.landmarks(portrait, samples),
            "by the sound": edited(
                head.landmarks(portrait, samples, controls=Controls(silence_gate=False)),
                Edits(close_silence=True),
                samples=samples,
            ),
        }
        for name, track in tracks.items():
            opening = openings(track)
            speech_range = np.ptp(np.percentile(opening[:last], (2, 98)))
            rest = opening[-1]
            assert speech_range > 0.002, name
            assert np.abs(opening[last + 6 :] - rest).max() < 0.02 * speech_range, name

    def test_gates_at_other_rates(self) -> None:
        from atldiff.audio.load import load_audio

        samples = load_audio(EXAMPLES / "speech.wav").samples[:48_000]
        base, fast = heard_gate(samples, still(75)), heard_gate(samples, still(150, 50))
        assert base.max() == 1
        assert np.array_equal(fast[::2], base)
        assert heard_gate(np.zeros(6400, np.float32), still(20)).max() == 0
        assert len(heard_gate(samples, still(200))) == 200


def test_fps_of_an_edited_track(head: TalkingHead, portrait: Portrait, speech: np.ndarray) -> None:
    track = head.landmarks(portrait, speech, fps=Fraction(30000, 1001), edits=Edits(head="0:0 0.8:10"))
    assert track.fps == Fraction(30000, 1001)
    assert turns(track)[-1, 0] == pytest.approx(10, abs=0.05)
    assert apart(track, track) == 0


class TestCommandLine:
    def test_the_landmarks_of_a_video(
        self, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from atldiff import cli
        from atldiff.methods.driving import open_driving, track_video

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("atldiff.pipeline.TalkingHead.from_pretrained", lambda *a, **b: pytest.fail("loaded"))
        assert cli.run(["landmarks", "--from-video", str(talking), "--quiet"]) == 0
        wanted = track_video(talking)
        assert same(LandmarkTrack.load("talking.npz"), wanted)
        options = ["-o", "t.json", "--preview", "p.mp4", "--blink-times", "0.5", "--still", "--fps", "50", "--json"]
        assert cli.run(["landmarks", "--from-video", str(talking), *options]) == 0
        track = LandmarkTrack.load("t.json")
        assert (track.fps, len(track)) == (50, 80)
        assert np.abs(turns(track)).max() < 1e-3
        said = json.loads(capsys.readouterr().out)
        assert (said["output"], said["preview"], said["frames"]) == ("t.json", "p.mp4", 80)
        with av.open("p.mp4") as container:
            assert sum(1 for _ in container.decode(video=0)) == 80
            assert len(container.streams.audio) == 1
        opened = open_driving("t.json", Controls())
        assert (opened.fps, len(opened)) == (25, 40)

    def test_a_video_s_motion_on_a_portrait(
        self, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: TalkingHead, portrait: Portrait
    ) -> None:
        from atldiff import cli
        from atldiff.methods.driving import track_video

        monkeypatch.setattr("atldiff.pipeline.TalkingHead.from_pretrained", lambda *a, **b: head)
        out, picture = tmp_path / "t.npz", tmp_path / "face.png"
        cv2.imwrite(str(picture), portrait.image[..., ::-1])
        args = ["landmarks", str(picture), "--from-video", str(talking), "-o", str(out), "--quiet"]
        assert cli.run([*args, "--preview", str(tmp_path / "p.png")]) == 0
        track = LandmarkTrack.load(out)
        assert (track.size, len(track)) == (portrait.size, 40)
        assert np.abs(turns(track) - turns(track_video(talking))).max() < 0.1
        assert cv2.imread(str(tmp_path / "p.png")).shape == portrait.image.shape
