"""The walk of the data for the default method, step by step, as in docs/architecture.md: shapes, ranges, order."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atldiff.audio.features import log_mel
from atldiff.audio.load import load_audio
from atldiff.config import ATLConfig, SampleConfig
from atldiff.diffusion.noise import guided_noise, window_noise
from atldiff.diffusion.sampler import sample, time_features
from atldiff.landmarks.control import CHIN, FACE_CONTROL
from atldiff.landmarks.detect import detect
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.stream import whole
from atldiff.landmarks.topology import LIPS, LIPS_INNER, OVAL
from atldiff.methods.atl.inputs import NEEDED, build_inputs, changed
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.models import painter_of, speaker_of
from atldiff.methods.mouth_layers import window_layers
from atldiff.methods.speech import TrackStream
from atldiff.methods.window_frames import portrait_layers
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, SAMPLES_PER_FRAME, frame_count
from atldiff.torch_networks import torch_networks
from atldiff.types import Controls, Portrait
from atldiff.video.composite import WindowResult, composite
from atldiff.video.still import read_image
from atldiff.video.warp import PortraitWarp
from atldiff.video.window import WindowGeometry, apply, extract, fit_window, invert
from atldiff.video.write import VideoWriter

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WINDOW = 16


def test_the_walk(tmp_path: Path, random_model: ATLModel) -> None:
    config: ATLConfig = random_model.config
    width, height = size = config.renderer.side, config.renderer.height

    # 1 an image becomes (H, W, 3) uint8
    image = read_image(EXAMPLES / "portrait.jpg")
    assert image.dtype == np.uint8
    assert image.shape == (512, 512, 3)

    # 2 landmarks (478, 3) in its pixels
    landmarks = detect(image)
    assert landmarks.shape == (478, 3)
    assert (landmarks[OVAL, :2] > 0).all()
    assert (landmarks[OVAL, :2] < 512).all()
    portrait = Portrait(image, landmarks)

    # 3 the window and its transform, with an exact inverse
    geometry = WindowGeometry(width, config.renderer.origin, config.renderer.scale, height)
    matrix = fit_window(landmarks[None], geometry)[0]
    assert matrix.shape == (2, 3)
    identity = extract(image, matrix, size, sharp=True)
    assert identity.shape == (height, width, 3)
    lips = apply(matrix, landmarks[LIPS, :2].astype(np.float64))
    assert (lips > 0).all()
    assert (lips < size).all()
    assert np.abs(apply(invert(matrix), lips) - landmarks[LIPS, :2]).max() < 1e-3

    # 4 samples at 16 kHz mono
    audio = load_audio(EXAMPLES / "speech.wav")
    assert audio.samples.dtype == np.float32
    samples = audio.samples[: 40 * SAMPLES_PER_FRAME - 100]
    frames = frame_count(len(samples))
    assert frames == 40

    # 5 log-mel, four columns a frame
    mel, levels = log_mel(samples)
    assert mel.shape == (COLUMNS_PER_FRAME * frames, 80)
    assert levels.shape == (COLUMNS_PER_FRAME * frames, 2)

    # 6 the generator: pose-free displacements
    shape = to_canonical(landmarks.astype(np.float64), mean_shape())[0]
    speaker = speaker_of(random_model.generator)
    coefficients = whole(speaker.stream(shape.astype(np.float32)), samples, mel)
    assert coefficients.shape == (frames, config.generator.components)
    assert speaker.moves.shape == (config.generator.components, 478, 3)
    displacements = np.einsum("tm,mkd->tkd", coefficients, speaker.moves)
    assert displacements.shape == (frames, 478, 3)

    # 7 target landmarks in portrait pixels
    stream = TrackStream(speaker, portrait, Controls(still=True, blink_rate_hz=0))
    first, last = stream.push(samples), stream.flush()
    track_points = np.concatenate([first.points(), last.points()])
    assert track_points.shape == (frames, 478, 3)
    assert first.fps == Fraction(FPS)
    target = track_points[:WINDOW]

    # 8 the mouth in two layers: lips without what is between them, and what is behind them
    source = apply(matrix, landmarks[:, :2].astype(np.float64))
    layers = window_layers([identity], source[None, LIPS_INNER], source[None, CHIN], geometry)
    source = source[NEEDED]
    assert layers.lips.shape == identity.shape
    assert layers.skull.any()  # the example smiles with its teeth
    native = portrait_layers(portrait)
    assert native.lips.shape == image.shape

    # 9 the lips warped to them, over what is behind: at the portrait's own resolution, and at window size
    unit_px = geometry.scale / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    warp = PortraitWarp.prepare(native.lips, landmarks[OVAL, :2], FACE_CONTROL.of(landmarks[:, :2]), unit_px)
    moved = warp.warp(FACE_CONTROL.of(target[0, :, :2]))
    x0, y0, x1, y1 = warp.box
    assert moved.shape == (y1 - y0, x1 - x0, 3)
    matrices = fit_window(target, geometry)
    window_points = np.stack([apply(m, p[:, :2]) for m, p in zip(matrices, target, strict=True)])
    still = identity.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    inputs = build_inputs(still, source[None], window_points[None][:, :, NEEDED], config.renderer, [layers])
    assert inputs.prior.shape == (1, 3, WINDOW, height, width)
    assert inputs.conditions.shape == (1, 17, WINDOW, height, width)
    assert inputs.mask.shape == (1, 1, WINDOW, height, width)
    assert 0 <= float(inputs.mask.min()) <= float(inputs.mask.max()) <= 1
    assert -1 <= float(inputs.prior.min()) <= float(inputs.prior.max()) <= 1

    # 10 the guided noise: the prior, disturbed where the landmarks say
    noise = window_noise(0, 3, size)
    start = guided_noise(inputs.prior, inputs.mask, noise[None, :, None], 0.05, 0.6)
    disturbed = np.abs(start - inputs.prior).mean(1, keepdims=True)
    assert start.shape == inputs.prior.shape
    assert float(disturbed[inputs.mask > 0.9].mean()) > 5 * float(disturbed[inputs.mask == 0].mean())

    # 11 the sampler: frames, equal to the prior outside the mask
    denoiser, embedded = torch_networks(random_model.renderer)["denoiser"], 2 * config.renderer.widths[0]

    def denoise(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        (residual,) = denoiser(np.concatenate([x, inputs.conditions], 1), time_features(t, embedded))
        return changed(inputs.prior, inputs.mask, residual, config.renderer)

    sampled = sample(denoise, start, steps=2)
    assert sampled.shape == inputs.prior.shape
    outside = np.broadcast_to(inputs.mask == 0, sampled.shape)
    assert np.array_equal(sampled[outside], inputs.prior[outside])
    painted = painter_of(random_model.renderer).render_batch(asdict(inputs), noise[None, :, None], 2)[0]  # pyright: ignore
    assert np.array_equal(painted, np.clip(sampled, -1, 1))

    # 12 the composite at native resolution touches the window's part only
    levels_of = lambda x: np.ascontiguousarray((x[0, :, 0].transpose(1, 2, 0) + 1) * 127.5)  # noqa: E731
    canvas = moved.copy()
    result = WindowResult(
        levels_of(sampled) - levels_of(inputs.prior),
        levels_of(inputs.prior),
        np.zeros((height, width), np.float32),
        matrices[0],
    )
    composite(canvas, (x0, y0), result)
    touched = np.argwhere((canvas != moved).any(axis=2))
    corners = apply(invert(matrices[0]), np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
    assert len(touched)
    assert (touched[:, ::-1] + [x0, y0] >= corners.min(0) - 2).all()
    assert (touched[:, ::-1] + [x0, y0] <= corners.max(0) + 2).all()

    # 13 written as it is made
    path = tmp_path / "walk.mp4"
    with VideoWriter(path, size=image.shape[:2], fps=Fraction(FPS), audio=None) as writer:
        for _ in range(3):
            frame = image.copy()
            frame[y0:y1, x0:x1] = canvas
            writer.write(frame)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize("field", ["window_frames", "shared_frames", "steps"])
def test_the_default_window_is_the_documented_one(field: str) -> None:
    assert getattr(SampleConfig(), field) == {"window_frames": 4, "shared_frames": 0, "steps": 2}[field]
