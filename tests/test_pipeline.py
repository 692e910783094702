"""The whole pipeline on random models and the bundled portrait: equality, seeds, conditions, doors, files.

Tests that take `head` run for each method; `atl_head` is for what only the default one promises.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
import torch

from atldiff.config import LATENT_SAMPLING, LAYERED_SAMPLING, PAPER_SAMPLING, PRESETS, SampleConfig
from atldiff.devices import choose_dtype
from atldiff.errors import AtlDiffError, FaceNotFound
from atldiff.evaluation.metrics.motion import eye_opening
from atldiff.landmarks.blink import blink_displacement
from atldiff.landmarks.detect import detect
from atldiff.landmarks.emotion import with_emotion
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, LandmarkTrack, Portrait

if TYPE_CHECKING:
    from atldiff.methods.atl_published.network import PublishedModel
    from atldiff.methods.models import Model

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RATE = 16_000


@pytest.fixture(scope="module")
def head(random_any_model: Model) -> TalkingHead:
    return TalkingHead(random_any_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def atl_head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def paper_head(random_paper_model: PublishedModel) -> TalkingHead:
    return TalkingHead(random_paper_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def portrait(atl_head: TalkingHead) -> Portrait:
    return atl_head.open_portrait(EXAMPLES / "portrait.jpg")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with av.open(str(EXAMPLES / "speech.wav")) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return (np.concatenate(frames)[: 2 * RATE + 137] / 32768).astype(np.float32)


def frames_of(video) -> np.ndarray:
    return np.stack(list(video))


def test_streaming_in_random_packets_equals_the_offline_call(head, portrait, speech) -> None:
    offline = frames_of(head(portrait, speech))
    random = np.random.default_rng(5)
    cuts = np.sort(random.integers(0, len(speech), 23))
    for pieces in (np.split(speech, cuts), [speech], np.split(speech, range(160, len(speech), 160))):
        streamed = np.stack(list(head.stream(portrait, pieces)))
        assert streamed.shape == offline.shape
        assert (streamed == offline).all()


def test_length_is_exact(head, portrait) -> None:
    for samples, frames in ((1, 1), (640, 1), (641, 2), (16_000, 25), (16_001, 26)):
        assert len(head(portrait, np.full(samples, 0.01, np.float32))) == frames


@pytest.mark.parametrize("model", ["random_model", "random_whisper_model", "random_difftalker_model"])
def test_frames_come_before_the_end_of_the_stream(model, request, portrait, speech) -> None:
    head = TalkingHead(request.getfixturevalue(model), device="cpu", dtype="float32")
    # a window of four frames, four frames of look-ahead, and 120 samples for the last column of the features
    assert packets_before_a_frame(head, portrait, speech) == 9
    exact = 8 * 640 + 120
    next(head.stream(portrait, stopping(speech[:exact])))
    with pytest.raises(Over):
        next(head.stream(portrait, stopping(speech[: exact - 1])))


def test_the_published_method_streams_by_the_second(paper_head, portrait, speech) -> None:
    short = SampleConfig(steps=1, window_frames=8, shared_frames=2)
    # a second of sound, and two frames more for the silence gate and the features
    assert 25 <= packets_before_a_frame(paper_head, portrait, speech, sampling=short) <= 34
    # a window of 32 frames needs a second second
    assert packets_before_a_frame(paper_head, portrait, speech) < 50


class Over(Exception):  # noqa: N818 - not an error
    """The sound is not over: what has come so far has to do."""


def stopping(samples):
    yield samples
    raise Over


def packets_before_a_frame(head, portrait, speech, **settings) -> int:
    taken = []

    def packets():
        for start in range(0, len(speech), 640):
            taken.append(start)
            yield speech[start : start + 640]

    next(head.stream(portrait, packets(), **settings))
    return len(taken)


def test_same_seed_same_frames_other_seed_others(head, portrait, speech) -> None:
    first, again = frames_of(head(portrait, speech)), frames_of(head(portrait, speech))
    other = frames_of(head(portrait, speech, controls=Controls(seed=1)))
    assert (first == again).all()
    assert (first != other).any()


def test_grey_and_toned_portraits_keep_their_tone(head, portrait, speech) -> None:
    grey = np.repeat(portrait.image[..., 1:2], 3, axis=2)
    frames = frames_of(head(Portrait(grey, portrait.landmarks), speech[:RATE]))
    assert np.ptp(frames, axis=3).max() == 0
    assert (frames != frames[:1]).any()
    tones = np.stack(
        [np.interp(np.arange(256), (0, 128, 255), c) for c in ((9, 140, 250), (6, 126, 248), (0, 97, 230))]
    )
    frames = frames_of(head(Portrait(tones.T[grey[..., 0]].astype(np.uint8), portrait.landmarks), speech[:RATE]))
    luma = frames @ [0.299, 0.587, 0.114]
    wanted = np.stack([np.interp(luma, tones.T @ [0.299, 0.587, 0.114], c) for c in tones], axis=-1)
    assert np.percentile(np.abs(frames - wanted), 99) <= 12  # nothing in it is of another colour


def test_every_condition_matters(head, portrait, speech) -> None:
    still = Controls(still=True, blink_rate_hz=0)
    base = frames_of(head(portrait, speech, controls=still))
    silent = frames_of(head(portrait, np.zeros_like(speech), controls=still))
    assert (base != silent).any()  # audio
    darker = Portrait((portrait.image * 0.7).astype(np.uint8), portrait.landmarks)
    assert (frames_of(head(darker, speech, controls=still)) != base).any()  # portrait
    track = head.landmarks(portrait, speech, controls=still)
    moved = track.displacements.copy()
    moved[:, 14, 1] += 0.05
    edited = LandmarkTrack(track.neutral, moved, track.rotation, track.translation, track.scale, track.fps, track.size)
    assert (frames_of(head.render(portrait, edited)) != frames_of(head.render(portrait, track))).any()  # landmarks
    assert (frames_of(head.render(portrait, track, seed=3)) != frames_of(head.render(portrait, track))).any()  # noise
    more = frames_of(head(portrait, speech, controls=still, sampling=replace(head.sampling("balanced"), steps=3)))
    assert (more != base).any()  # steps


def test_rendering_an_exported_track_gives_the_same_frames(head, portrait, speech, tmp_path) -> None:
    track = head.landmarks(portrait, speech)
    track.save(tmp_path / "track.npz")
    again = LandmarkTrack.load(tmp_path / "track.npz")
    assert (frames_of(head.render(portrait, again)) == frames_of(head(portrait, speech))).all()


def test_silence_holds_the_mouth_still(head, portrait) -> None:
    track = head.landmarks(portrait, np.zeros(RATE, np.float32), controls=Controls(still=True, blink_rate_hz=0))
    assert np.abs(track.displacements - track.displacements[0]).max() < 1e-6


def test_what_lies_outside_the_moving_box_is_untouched(atl_head, portrait, speech) -> None:
    frame = next(iter(atl_head(portrait, speech, controls=Controls(still=True, blink_rate_hz=0))))
    difference = np.abs(frame.astype(int) - portrait.image.astype(int)).max(axis=2)
    eyes = portrait.landmarks[[33, 263, 10], :2].astype(int)
    assert difference[: eyes[:, 1].min() - 40].mean() < 1  # above the forehead next to nothing moves in a still video


def test_a_blink_is_seen(atl_head, portrait) -> None:
    head = atl_head
    track = head.landmarks(portrait, np.full(3 * 640, 1e-4, np.float32), controls=Controls(still=True, blink_rate_hz=0))
    closure = np.array([0, 0.5, 1], np.float32)
    open_eyes = np.zeros_like(track.displacements)
    blink = blink_displacement(track.neutral, closure)
    before, still = (frames_of(head.render(portrait, replace(track, displacements=d))) for d in (open_eyes, blink))
    assert (before[0] == still[0]).all()
    mouth = int(portrait.landmarks[2, 1])
    assert (before[1:, mouth:] == still[1:, mouth:]).mean() > 0.99  # a blink is the eyes' own matter
    wide, half, shut = eye_opening(np.stack([detect(frame) for frame in still]))
    assert wide > 0.9 * eye_opening(portrait.landmarks[None])[0]
    assert shut < 0.55 * wide
    assert shut + 0.1 * wide < half < wide - 0.1 * wide


@pytest.mark.parametrize(("fps", "frames"), [(30, 61), (Fraction(30000, 1001), 61), (12.5, 26), (50, 101)])
def test_other_frame_rates_interpolate_landmarks(head, portrait, speech, fps, frames) -> None:
    track = head.landmarks(portrait, speech, fps=fps)
    assert abs(len(track) - frames) <= 0
    assert float(track.fps) == pytest.approx(float(fps), rel=1e-6)


def test_a_track_goes_onto_another_face(head, portrait, speech) -> None:
    track = head.landmarks(portrait, speech)
    image = np.ascontiguousarray(portrait.image[:, ::-1])
    mirrored = head.open_portrait(image)
    video = head.render(mirrored, track)
    bridge = video.track.points()[0, 168, :2] - mirrored.landmarks[168, :2]  # random weights may move what is below
    assert np.abs(bridge).max() < 3


def test_size_scales_the_picture_and_its_landmarks(head, speech) -> None:
    video = head(EXAMPLES / "portrait.jpg", speech[:3200], size=256)
    assert video.size == (256, 256)
    assert next(iter(video)).shape == (256, 256, 3)
    assert video.track.points().max() < 256


def test_saved_video_has_exact_duration_and_sound(head, portrait, speech, tmp_path) -> None:
    seen = []
    path = head(portrait, speech).save(tmp_path / "out.mp4", progress=lambda done, total: seen.append((done, total)))
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        frames = sum(1 for _ in container.decode(video))
        assert frames == 51 == seen[-1][0] == seen[-1][1]
        assert float(video.duration * video.time_base) == pytest.approx(51 / 25, abs=1e-3)
        assert float(sound.duration * sound.time_base) == pytest.approx(len(speech) / RATE, abs=0.03)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_video_as_portrait(atl_head, portrait, speech, tmp_path) -> None:
    head = atl_head
    path = head(portrait, speech[:6400]).save(tmp_path / "portrait.mp4")
    opened = head.open_portrait(path, frame=3)
    assert np.abs(opened.landmarks[4, :2] - portrait.landmarks[4, :2]).max() < 10
    with pytest.raises(ValueError, match="frames"):
        head.open_portrait(path, frame=999)
    with pytest.raises(ValueError, match="still picture"):
        head.open_portrait(EXAMPLES / "portrait.jpg", frame=1)


def test_doors(head, portrait, speech, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound")
    for bad_portrait, bad_audio, kind in (
        (noise, speech, FaceNotFound),
        (np.zeros((1, 1, 3), np.uint8), speech, (AtlDiffError, ValueError)),
        (tmp_path / "none.jpg", speech, AtlDiffError),
        (portrait, tmp_path / "empty.wav", AtlDiffError),
        (portrait, tmp_path / "text.wav", AtlDiffError),
        (portrait, np.zeros(0, np.float32), (AtlDiffError, ValueError)),
        (portrait, np.full(16000, np.nan, np.float32), (AtlDiffError, ValueError)),
    ):
        with pytest.raises(kind) as caught:
            head(bad_portrait, bad_audio)
        assert "\n" not in str(caught.value)
    with pytest.raises(AtlDiffError):
        head(portrait, speech).save(tmp_path / "missing" / "out.mp4")
    with pytest.raises(ValueError, match="fps"):
        head(portrait, speech, fps=0.1)
    with pytest.raises(ValueError, match="size"):
        head(portrait, speech, size=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.wav", "text.wav"]


def test_device_and_dtype_are_checked(random_any_model) -> None:
    with pytest.raises(ValueError, match="device"):
        TalkingHead(random_any_model, device="abacus")
    with pytest.raises(ValueError, match="dtype"):
        TalkingHead(random_any_model, dtype="float7")


def test_face_at_the_border_and_partly_outside(head, speech) -> None:
    image = np.asarray(head.open_portrait(EXAMPLES / "portrait.jpg").image)
    full = head.open_portrait(image)
    chin = int(full.landmarks[152, 1])
    cut = Portrait(np.ascontiguousarray(image[: chin - 12]), full.landmarks)  # the chin lies below the picture
    frames = frames_of(head(cut, speech[:12800]))
    assert frames.shape[1:] == cut.image.shape


def test_presets_are_sample_configs() -> None:
    assert [PRESETS[name].steps for name in ("fast", "balanced", "best")] == [1, 2, 4]
    assert [LAYERED_SAMPLING[name].steps for name in ("fast", "balanced", "best")] == [1, 1, 2]
    assert [LAYERED_SAMPLING[name].every for name in ("fast", "balanced", "best")] == [2, 1, 1]
    assert [PAPER_SAMPLING[name].steps for name in ("fast", "balanced", "best")] == [1, 2, 8]
    assert [LATENT_SAMPLING[name].steps for name in ("fast", "balanced", "best")] == [1, 2, 8]


def test_each_method_has_its_own_presets(head) -> None:
    own = {ATLModel: LAYERED_SAMPLING, PublishedModel: PAPER_SAMPLING}.get(type(head.model), LATENT_SAMPLING)
    assert head.sampling() == own["balanced"]
    for name, sampling in own.items():
        assert head.sampling(name) == sampling
    chosen = SampleConfig(steps=3)
    assert head.sampling(chosen) is chosen
    with pytest.raises(ValueError, match="sampling: got 'quick', expected fast, balanced, best or a SampleConfig"):
        head.sampling("quick")


def test_frames_between_painted_ones_are_interpolated_in_the_mouth_alone(atl_head, portrait, speech) -> None:
    all_painted = SampleConfig(steps=1, window_frames=5, shared_frames=0)
    every, half = (atl_head.sampling(replace(all_painted, every=n)) for n in (1, 2))
    whole, less = (frames_of(atl_head(portrait, speech[:12800], sampling=s)).astype(int) for s in (every, half))
    assert len(whole) == len(less) == 20
    differs = (whole != less).any(axis=(1, 2, 3))
    assert differs[1::5].all()
    assert differs[3::5].all()  # the second and fourth of each window of five
    streamed = np.stack(list(atl_head.stream(portrait, np.split(speech[:12800], [700, 5000]), sampling=half)))
    assert (streamed == less).all()
    upper = slice(0, int(portrait.landmarks[[33, 263], 1].max()))
    assert (whole[:, upper] == less[:, upper]).all()  # the head moves in every frame all the same


def test_emotions_are_told_to_the_published_method(paper_head, portrait, speech) -> None:
    still, short = Controls(still=True, blink_rate_hz=0), SampleConfig(steps=1, window_frames=8, shared_frames=2)
    happy = replace(still, emotion="happy")
    with pytest.raises(ValueError, match="emotion: got 'merry', expected one of angry, fear"):
        Controls(emotion="merry")
    plain, felt = (paper_head.landmarks(portrait, speech, controls=controls) for controls in (still, happy))
    assert np.abs(plain.displacements - felt.displacements).max() > 1e-4  # the generator hears it
    drawn = [
        frames_of(paper_head.render(portrait, plain.slice(0, 8), sampling=short, emotion=e)) for e in (None, "sad")
    ]
    assert (drawn[0] != drawn[1]).any()  # and so does the renderer
    whole = frames_of(paper_head(portrait, speech[:6400], controls=happy, sampling=short))
    streamed = np.stack(list(paper_head.stream(portrait, [speech[:6400]], controls=happy, sampling=short)))
    assert (whole == streamed).all()
    assert (whole != frames_of(paper_head(portrait, speech[:6400], controls=still, sampling=short))).any()
    half = paper_head.landmarks(portrait, speech, controls=replace(still, emotion="happy:0.5"))
    assert np.allclose(
        half.displacements, with_emotion(plain, "happy:0.5").displacements, atol=1e-6
    )  # no label says it


def test_emotions_move_the_landmarks_of_all_other_methods(atl_head, portrait, speech) -> None:
    said = "neutral happy:0.8@0.2 sad@0.7"
    plain, felt = (atl_head.landmarks(portrait, speech, controls=Controls(seed=1, emotion=e)) for e in (None, said))
    assert np.allclose(felt.displacements, with_emotion(plain, said).displacements, atol=1e-6)
    assert np.array_equal(felt.displacements[:6], plain.displacements[:6])
    assert np.abs(felt.displacements[16] - plain.displacements[16]).max() > 0.05
    controls = Controls(seed=1, emotion=said)
    whole = frames_of(atl_head(portrait, speech[:7680], controls=controls))
    pieces = np.split(speech[:7680], [123, 4000])
    assert (np.stack(list(atl_head.stream(portrait, pieces, controls=controls))) == whole).all()
    track = atl_head.landmarks(portrait, speech[:7680], controls=Controls(seed=1))
    rendered = frames_of(atl_head.render(portrait, track, seed=1, emotion=said))
    assert np.abs(rendered.astype(int) - whole).max() <= 40  # the track's displacements were rounded once more
    assert np.abs(rendered.astype(int) - whole).mean() < 0.01


def test_an_unknown_emotion_is_refused_before_any_work(head, portrait, speech) -> None:
    track = head.landmarks(portrait, speech[:6400])
    with pytest.raises(ValueError, match="emotion: got 'merry'"):
        head.render(portrait, track, emotion="merry")


def test_a_gif_is_smaller_unless_a_size_is_asked_for(atl_head, portrait, speech, tmp_path, caplog) -> None:
    video = atl_head(portrait, speech[:6400])
    path = video.save(tmp_path / "out.gif")
    assert "made smaller than the portrait's 512x512" in caplog.text
    assert video.written == ((480, 480), 25, 10)
    assert video.size == (512, 512)
    with av.open(str(path)) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    expected = np.stack([cv2.resize(frame, (480, 480), interpolation=cv2.INTER_AREA) for frame in video])
    assert np.abs(shown.astype(float) - expected).mean() < 8
    small = video._shown_in(path)
    ratio = 480 / 512
    assert np.abs(small.track.points() - ratio * video.track.points()).max() < 0.01
    caplog.clear()
    chosen = atl_head(portrait, speech[:640], size=500)
    chosen.save(path)
    assert chosen.written.size == (500, 500)
    assert "smaller" not in caplog.text


def test_odd_sides_are_told_as_the_file_has_them(atl_head, portrait, speech, tmp_path) -> None:
    image = np.ascontiguousarray(portrait.image[:301, :333])
    video = atl_head(Portrait(image, portrait.landmarks), speech[:640])
    video.save(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert video.written.size == (stream.height, stream.width) == (302, 334)
    video.save(f"{tmp_path}/frames/")
    assert video.written.size == video.size == (301, 333)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_killed_generation_leaves_no_broken_file(tmp_path, random_any_model) -> None:
    TalkingHead(random_any_model, device="cpu", dtype="float32").save_pretrained(tmp_path / "weights")
    code = (
        "import sys, numpy as np, torch\n"
        "torch.set_num_threads(1)\n"
        "from atldiff.pipeline import TalkingHead\n"
        "head = TalkingHead.from_pretrained(sys.argv[1], device='cpu')\n"
        "audio = np.random.default_rng(0).normal(0, .1, 16000 * 20).astype(np.float32)\n"
        "video = head(sys.argv[2], audio, size=256)\n"
        "video.save(sys.argv[3], progress=lambda done, total: print(done, flush=True))\n"
    )
    out = tmp_path / "out.mp4"
    arguments = [sys.executable, "-c", code, str(tmp_path / "weights"), str(EXAMPLES / "portrait.jpg"), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 120:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
    assert not out.exists()
    partial = [p for p in tmp_path.iterdir() if p.suffix == ".mp4"]
    for path in partial:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def test_bundled_weights_speak(speech) -> None:
    head = TalkingHead.from_pretrained("atl-diff", device="cpu")
    track = head.landmarks(
        EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav", controls=Controls(still=True, blink_rate_hz=0)
    )
    gap = np.linalg.norm(track.points()[:, 14] - track.points()[:, 13], axis=1) / track.scale
    assert gap.std() > 0.01  # the mouth moves ...
    frames = frames_of(head.render(EXAMPLES / "portrait.jpg", track.slice(10, 30)))
    assert frames.shape == (20, 512, 512, 3)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("limit", "native", "chosen"),
    [
        (None, True, torch.bfloat16),
        ("default", True, torch.bfloat16),
        ("AVX512_CORE_AMX", True, torch.bfloat16),
        ("AVX512_CORE", True, torch.float32),  # oneDNN would emulate bfloat16
        ("AVX2", True, torch.float32),
        (None, False, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_in_hardware_and_allowed(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, native: bool, chosen: torch.dtype
) -> None:
    monkeypatch.setattr("atldiff.machine.cpu_flags", lambda: "avx512f avx512_bf16" if native else "avx512f")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choose_dtype("auto", torch.device("cpu")) == chosen
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32


def test_a_stream_of_bytes_gives_the_frames_of_its_samples(atl_head, portrait, speech) -> None:
    pcm = np.rint(speech[:8000] * 32767).astype("<i2")
    data = pcm.tobytes()
    cuts = [data[:1001], data[1001:1002], data[1002:]]
    from_bytes = list(atl_head.stream(portrait, cuts))
    from_arrays = list(atl_head.stream(portrait, [pcm]))
    assert len(from_bytes) == len(from_arrays) > 0
    assert all(np.array_equal(a, b) for a, b in zip(from_bytes, from_arrays, strict=True))
