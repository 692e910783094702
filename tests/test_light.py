"""What a light install does: each test's work is done by a new interpreter without torch, SciPy and their like."""

from __future__ import annotations

import json
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import light

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "portrait.jpg"


def nothing_is_there() -> None:
    for name in light.MISSING:
        with pytest.raises(ModuleNotFoundError):
            __import__(f"{name}.something")


def test_the_helper_blocks() -> None:
    light.run(nothing_is_there)
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        light.run(needs_torch)


def needs_torch() -> None:
    import torch

    torch.zeros(1)


def test_the_help(tmp_path: Path) -> None:
    done = light.command("--help")
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
    done = light.command("generate", tmp_path / "none.jpg", tmp_path / "none.wav", "-o", tmp_path / "x.mp4")
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_faces(tmp_path: Path) -> None:
    done = light.command("faces", EXAMPLE, "-o", tmp_path / "faces.png", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 1
    assert (tmp_path / "faces.png").stat().st_size > 1000


def read_portraits(folder: str) -> None:
    import pillow_heif
    from PIL import Image

    from atldiff.methods.portrait import open_portrait
    from atldiff.video.still import read_rgba

    picture = Image.open(EXAMPLE).convert("RGB")
    picture.thumbnail((320, 320))
    pixels = np.asarray(picture)
    clear = np.zeros(pixels.shape[:2], np.uint8)
    clear[:, 20:-20] = 255
    cut = Image.fromarray(np.dstack([pixels, clear]))
    files = {suffix: Path(folder, f"face.{suffix}") for suffix in ("jpg", "png", "webp", "bmp", "tiff", "gif", "avif")}
    for path in files.values():
        picture.save(path)
    files["heic"] = Path(folder, "face.heic")
    pillow_heif.from_pillow(picture).save(files["heic"], quality=90)
    for suffix, path in files.items():
        image, alpha = read_rgba(path)
        assert image.shape == pixels.shape, suffix
        assert alpha is None, suffix
        assert np.abs(image.astype(int) - pixels).mean() < 8, suffix
    for suffix in ("png", "webp", "tiff"):
        path = Path(folder, f"cut.{suffix}")
        cut.save(path)
        _, alpha = read_rgba(path)
        assert np.array_equal(alpha, clear), suffix  # pyright: ignore[reportArgumentType]
    deep = Path(folder, "deep.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(deep)
    assert read_rgba(deep)[0].shape == pixels.shape
    portrait = open_portrait(files["heic"])
    assert portrait.landmarks.shape == (478, 3)
    assert np.abs(portrait.landmarks - open_portrait(pixels).landmarks).mean() < 2


def test_portraits_of_all_formats(tmp_path: Path) -> None:
    light.run(read_portraits, tmp_path)


def read_sounds(folder: str) -> None:
    from atldiff.audio.features import log_mel
    from atldiff.audio.load import PacketResampler, load_audio
    from atldiff.audio.voice import voice_of

    for rate in (8_000, 16_000, 22_050, 44_100, 48_000):
        time = np.arange(rate) / rate
        tone = (20_000 * np.sin(2 * np.pi * 300 * time)).astype("<i2")
        path = Path(folder, f"{rate}.wav")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(np.repeat(tone, 2).tobytes())
        wanted = 20_000 / 32_768 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
        stream = PacketResampler(rate)
        packets = [stream.feed(tone[start : start + 441]) for start in range(0, rate, 441)]
        for samples in (load_audio(path).samples, np.concatenate([*packets, stream.flush()])):
            assert len(samples) == 16_000, rate
            assert np.abs(samples - wanted)[100:-100].max() < 1e-3, rate
        assert log_mel(samples)[0].shape[1] == 80
        assert len(voice_of(samples))


def test_sounds_of_several_rates(tmp_path: Path) -> None:
    light.run(read_sounds, tmp_path)


def edit_tracks(folder: str) -> None:
    from atldiff.landmarks.edit import at_fps, resized_track, retarget, scale_expression, smooth
    from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
    from atldiff.landmarks.shape import mean_shape
    from atldiff.landmarks.steady import steady
    from atldiff.methods.edits import TrackEdits
    from atldiff.methods.edits import edited as apply_edits
    from atldiff.types import LandmarkTrack

    yaw = np.linspace(0, 20, 11)
    track = LandmarkTrack(
        neutral=mean_shape().astype(np.float32),
        displacements=np.random.default_rng(0).normal(0, 0.02, (11, 478, 3)).astype(np.float32),
        rotation=rotation_from_euler(yaw, 0 * yaw, 0 * yaw).astype(np.float32),
        translation=np.full((11, 3), 200, np.float32),
        scale=np.full(11, 90, np.float32),
        fps=Fraction(25),
        size=(400, 400),
    )
    path = Path(folder, "track.npz")
    track.save(path)
    track = LandmarkTrack.load(path)
    assert np.allclose(euler_degrees(at_fps(track, Fraction(50)).rotation)[:21, 0], np.linspace(0, 20, 21), atol=1e-3)
    other = retarget(track, track.neutral, np.eye(3), 150.0, np.full(3, 300.0), (800, 600))
    assert np.allclose(euler_degrees(other.rotation)[:, 0], yaw, atol=1e-3)
    path = Path(folder, "track.json")
    track.save(path)
    assert np.array_equal(LandmarkTrack.load(path).points(), track.points())
    asked = TrackEdits(
        jaw_strength=1.5, lip_strength=0.5, av_offset=33, smooth="one-euro", head="0:0 0.4:5,2,1", gaze="camera",
        blink_rate_hz=1, close_silence=True, limits=True,
    )  # fmt: skip
    made = apply_edits(track, asked, samples=np.zeros(11 * 640, np.float32))
    assert np.allclose(np.swapaxes(made.rotation, 1, 2) @ made.rotation, np.eye(3), atol=1e-5)
    assert len(apply_edits(track, TrackEdits(head="calm", smooth="savgol:5,2", blink_times="0.2"))) == 11
    for edited in (smooth(track, 1.5), scale_expression(track, 1.2), resized_track(track, (800, 800)), steady(track)):
        assert len(edited) == 11
        assert np.allclose(np.swapaxes(edited.rotation, 1, 2) @ edited.rotation, np.eye(3), atol=1e-5)


def test_tracks(tmp_path: Path) -> None:
    light.run(edit_tracks, tmp_path)


def write_and_read_videos(folder: str) -> None:
    from PIL import Image

    from atldiff.methods.driving import track_video
    from atldiff.methods.portrait import open_portrait
    from atldiff.video.read import is_video, read_frames
    from atldiff.video.window import WindowGeometry, fit_window
    from atldiff.video.write import VideoWriter

    picture = Image.open(EXAMPLE).convert("RGB")
    picture.thumbnail((240, 240))
    face = np.asarray(picture)
    sound = (0.1 * np.sin(np.arange(7_680) / 8)[:, None].astype(np.float32), 16_000)
    for suffix in ("mp4", "mov", "mkv", "webm", "gif"):
        path = Path(folder, f"video.{suffix}")
        audio = None if suffix == "gif" else sound
        with VideoWriter(path, size=(face.shape[0], face.shape[1]), fps=25, audio=audio) as writer:
            for shift in range(12):
                writer.write(np.roll(face, shift, axis=1))
        assert is_video(path), suffix
        assert sum(1 for _ in read_frames(path)) == 12, suffix
    clear = np.dstack([face, np.full(face.shape[:2], 128, np.uint8)])
    for suffix in ("webm", "mov"):
        path = Path(folder, f"clear.{suffix}")
        with VideoWriter(path, size=(face.shape[0], face.shape[1]), fps=25, alpha=True) as writer:
            writer.write(clear)
        assert path.stat().st_size > 1000
    assert open_portrait(Path(folder, "video.webm")).landmarks.shape == (478, 3)
    track = track_video(Path(folder, "video.mp4"))
    assert len(track) == 12
    assert fit_window(track.points(), WindowGeometry(128, (0, 0)), 1.5).shape == (12, 2, 3)


def test_videos(tmp_path: Path) -> None:
    light.run(write_and_read_videos, tmp_path)


def speak() -> None:
    """Tracks of networks that another runtime computes: here functions of what they are given."""
    from atldiff.audio.load import load_audio
    from atldiff.audio.whisper import Listener
    from atldiff.config import CompletionConfig, GeneratorConfig, KFLMConfig
    from atldiff.landmarks.shape import mean_shape
    from atldiff.landmarks.speaker import CompletionSpeaker, GeneratorSpeaker, LandmarkBasis, ShapeBasis
    from atldiff.methods.atl_published.speaker import PublishedSpeaker
    from atldiff.methods.speech import TrackStream, join
    from atldiff.types import Controls, Portrait

    random = np.random.default_rng(0)
    basis = LandmarkBasis(random.normal(0, 0.01, (20, 478, 3)).astype(np.float32), np.ones(20, np.float32))
    shapes = ShapeBasis(mean_shape().astype(np.float32), random.normal(0, 0.1, (8, 478, 3)).astype(np.float32))

    def hearing(columns: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
        return [np.tile(columns.reshape(1, -1, 320), (1, 1, 4))[..., :1024] + positions[:, ::2, :1]]

    def of_states(states: np.ndarray, *told: np.ndarray) -> list[np.ndarray]:
        return [states[:, 16:24, :20] if len(told) == 1 else states[..., :20]]

    def of_a_second(features: np.ndarray, initial: np.ndarray, emotion: np.ndarray) -> list[np.ndarray]:
        return [initial[:, None] + features[:, :25, :2, None].reshape(1, 25, 1, 2) * np.float32(0.01)]

    columns = KFLMConfig(features="log-mel", speech_model="", feature_width=16, frames=25, hop_frames=20)
    hear = Listener(hearing)
    speakers = (
        GeneratorSpeaker(GeneratorConfig(features="whisper"), basis, shapes, of_states, hear),
        CompletionSpeaker(CompletionConfig(features="whisper"), basis, shapes, of_states, hear),
        PublishedSpeaker(columns, basis, lambda *sound: [sound[0][:, :98:2, :16]], of_a_second),
    )
    samples = load_audio(EXAMPLE.with_name("speech.wav")).samples[: 50 * 640]
    face = Portrait(np.zeros((512, 512, 3), np.uint8), (100 * mean_shape() + 256).astype(np.float32))
    for speaker in speakers:
        stream = TrackStream(speaker, face, Controls())
        track = join([stream.push(samples), stream.flush()])
        assert track.displacements.shape == (50, 478, 3)
        assert np.ptp(track.displacements, axis=0).max() > 1e-3


def test_speech() -> None:
    light.run(speak)


@pytest.fixture(scope="module")
def word(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 0.6 s of the demo's sound."""
    path = tmp_path_factory.mktemp("word") / "word.wav"
    with wave.open(str(EXAMPLE.with_name("speech.wav"))) as whole, wave.open(str(path), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(int(0.6 * whole.getframerate())))
    return path


@pytest.mark.parametrize("method", ["atl-diff", "atl-diff-open", "atl-diff-paper", "difftalker", "lmdiff"])
def test_every_method_makes_a_video(method: str, word: Path, tmp_path: Path) -> None:
    done = light.command(
        "generate", EXAMPLE, word, "-o", tmp_path / "out.mp4", "--method", method, "--json", "--size", 256
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 15


def test_the_other_commands_of_the_main_job(word: Path, tmp_path: Path) -> None:
    track = tmp_path / "track.npz"
    done = light.command("landmarks", EXAMPLE, word, "-o", track)
    assert done.returncode == 0, done.stderr
    done = light.command("render", EXAMPLE, track, "-o", tmp_path / "rendered.webm", "--size", 192)
    assert done.returncode == 0, done.stderr
    (tmp_path / "list.jsonl").write_text(json.dumps({"portrait": str(EXAMPLE), "audio": str(word), "output": "a.mp4"}))
    done = light.command("batch", tmp_path / "list.jsonl", "--workers", "1", "--size", "96", "--json")
    assert json.loads(done.stdout)["done"] == 1, done.stderr
    done = light.command("doctor", "--json")
    told = json.loads(done.stdout)
    packages = {check["name"]: check for check in told["checks"] if check["section"] == "compute"}
    from atldiff.machine import integer_dot_products

    dtype = "int8" if integer_dot_products() else "float32"
    assert packages["auto"]["value"] == f"onnx, {dtype}, on cpu"
    assert packages["speed, onnx"]["problem"] is None


def test_what_needs_torch_says_so_in_one_line(tmp_path: Path) -> None:
    done = light.command("train", "renderer", "--data", "synthetic", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "torch" in done.stderr
    assert done.stderr.count("\n") == 1
    done = light.command("generate", EXAMPLE, EXAMPLE, "-o", tmp_path / "x.mp4", "--backend", "torch")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def paint() -> None:
    """Frames of networks that another runtime computes: here functions of what they are given."""
    from atldiff.config import (
        IdentityDiffusionConfig,
        LatentRendererConfig,
        RendererConfig,
        SampleConfig,
        TalkRendererConfig,
    )
    from atldiff.config.latent import MOUTH_WINDOW
    from atldiff.machine import computing_threads
    from atldiff.methods.build import open_painter
    from atldiff.methods.portrait import open_portrait
    from atldiff.video.patch import unpatched
    from atldiff.workers import Workers

    def shrunk(pictures: np.ndarray) -> list[np.ndarray]:
        return [np.concatenate([pictures, pictures[:, :1]], 1)[..., ::4, ::4].copy()]

    def enlarged(latents: np.ndarray) -> list[np.ndarray]:
        return [latents[:, :3].repeat(4, 3).repeat(4, 4)]

    of_latents = {
        "encode": shrunk, "decode": enlarged, "steer": lambda *told: [told[0][:, :1, :, ::4, ::4]],
        "denoiser": lambda x, level, still, told: [0.8 * still + 0.2 * x + 0.1 * told],
    }  # fmt: skip
    layered = RendererConfig(side=144, height=112, origin=(28, 41), scale=2.0, layered=True, mask_reach_px=6.0)
    painters = (
        open_painter(layered, {"denoiser": lambda seen, time: [0.5 * seen[:, :3] + time.mean()]}),
        open_painter(RendererConfig(), {"denoiser": lambda seen, time: [0.5 * seen[:, :3] * time.max()]}),
        open_painter(LatentRendererConfig(), of_latents),
        open_painter(TalkRendererConfig(**MOUTH_WINDOW), of_latents),
        open_painter(
            IdentityDiffusionConfig(side=64),
            {"describe": lambda picture: [picture[:, :, 0]], "denoiser": lambda x, level, tokens, emotion: [0.5 * x]},
        ),
    )
    face = open_portrait(EXAMPLE)
    points = np.repeat(face.landmarks[None], 14, 0)
    points[:, 14, 1] += 4 * np.sin(np.arange(14) / 3).astype(np.float32)
    workers = Workers(computing_threads())
    assert workers.count == 1  # OMP_NUM_THREADS
    sampling = SampleConfig(steps=2, window_frames=8, shared_frames=2)
    for painter in painters:
        made = []
        for portions, seed in (([14], 0), ([5, 8, 1], 0), ([14], 1)):
            stream, frames = painter.open(face, sampling, seed, workers=workers), []
            for part in np.split(points, np.cumsum(portions)[:-1]):
                frames.extend(unpatched(frame).copy() for frame in stream.push(part))
            made.append(np.stack([*frames, *(unpatched(frame).copy() for frame in stream.flush())]))
        whole, streamed, other = made
        assert whole.shape == (14, *face.image.shape)
        assert np.array_equal(whole, streamed)
        assert not np.array_equal(whole, other)
        assert (whole[3] != face.image).any()


def test_pictures() -> None:
    light.run(paint)


def test_a_video_is_dubbed(tmp_path: Path) -> None:
    import av
    from PIL import Image

    picture = Image.open(EXAMPLE).convert("RGB")
    picture.thumbnail((256, 256))
    video, out = tmp_path / "still.mp4", tmp_path / "out.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = picture.width // 2 * 2, picture.height // 2 * 2, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.asarray(picture.resize((stream.width, stream.height))))
        for _ in range(6):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    done = light.command("dub", video, EXAMPLE.with_name("speech.wav"), "-o", out, "--fit", "cut", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["frames"], told["frames_with_face"]) == (6, 6)
    assert "the face is seen in 6 of 6 frames" in done.stderr
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
