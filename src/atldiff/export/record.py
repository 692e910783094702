"""What a model's networks are called with in earnest: the pipeline's own calls while it animates a portrait."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import sampling_presets
from atldiff.errors import AtlDiffError
from atldiff.files import demo_portrait
from atldiff.landmarks.detect import detect
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.mouth import meet_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.build import open_painter, open_speaker
from atldiff.methods.models import buffers_of, speech_networks
from atldiff.methods.speech import TrackStream
from atldiff.timebase import FPS, SAMPLE_RATE
from atldiff.torch_networks import TorchNetwork, torch_networks
from atldiff.types import Controls, LandmarkTrack, Portrait
from atldiff.video.still import read_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atldiff.methods.models import Model
    from atldiff.networks import Network

    Call = tuple[np.ndarray, ...]

TONES = (1.0, 0.6)
"""Brightness of the pictures that are animated: the portrait's own, and a dark one."""
SYLLABLES_HZ = (0.5, 6.0)
"""The mouth moves by tones in this range, as it does in speech."""
HUM_HZ = 140.0
SPEECH_S = 2.5
"""Length of the made-up sound: a window of every method's generator."""
_TONES_EACH = 4
_LONGER = 2
"""Frames by which windows are longer the second time: what differs then may differ always."""


class Recorder:
    """A network that remembers what it is called with."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.calls: list[Call] = []

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return what the network does."""
        self.calls.append(tuple(np.array(array) for array in inputs))
        return self.network(*inputs)


def recorded(model: Model, seed: int = 0, *, thorough: bool = False) -> dict[str, list[Call]]:
    """Return the inputs that each network of a model is called with, by its name.

    seed: of the made-up sound and motion, and of the noise; another gives other calls of the same kind. Windows of the
    painter have the length of the preset `balanced`, and one more. thorough: the samplings of every preset, on pictures
    of two brightnesses.

    Raises:
        AtlDiffError: the bundled portrait is not there. FaceNotFound, MediaError: it cannot be used.
    """
    speaks = {
        name: Recorder(TorchNetwork(module, torch.device("cpu")))
        for name, module in speech_networks(model.generator).items()
    }
    paints = {name: Recorder(network) for name, network in torch_networks(model.renderer).items()}
    portrait = bundled_portrait()
    _speak(model, portrait, speaks, seed)
    _paint(model, portrait, paints, seed, thorough=thorough)
    return {name: recorder.calls for name, recorder in (speaks | paints).items() if recorder.calls}


def _speak(model: Model, portrait: Portrait, networks: Mapping[str, Network], seed: int) -> None:
    speaker = open_speaker(model.generator.config, buffers_of(model.generator), networks)
    stream = TrackStream(speaker, portrait, Controls(seed=seed, silence_gate=False))
    stream.push(hum(SPEECH_S, seed))
    stream.flush()


def _paint(model: Model, opened: Portrait, networks: Mapping[str, Network], seed: int, *, thorough: bool) -> None:
    painter = open_painter(model.renderer.config, networks)
    presets = sampling_presets(model.config.renderer)
    usual = presets["balanced"]
    longer = replace(usual, window_frames=usual.window_frames + _LONGER)
    samplings = [*dict.fromkeys(presets.values()), longer] if thorough else [usual, longer]
    tones = TONES if thorough else TONES[:1]
    for number, (tone, sampling) in enumerate((tone, sampling) for tone in tones for sampling in samplings):
        portrait = replace(opened, image=(opened.image * tone).astype(np.uint8))
        track = speaking_track(model, portrait, sampling.window_frames, seed * 1000 + number)
        for _ in painter.open(portrait, replace(sampling, shared_frames=0), seed).push(track.points()):
            pass


def hum(seconds: float, seed: int) -> np.ndarray:
    """Return a made-up voice (N,) float32: a buzz that swells as syllables do."""
    random = np.random.default_rng([seed, 7])
    moments = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * HUM_HZ * k * moments + random.uniform(0, 6)) / k for k in range(1, 24))
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * random.uniform(3, 5) * moments)
    return (0.1 * swell * buzz + 0.001 * random.standard_normal(len(moments))).astype(np.float32)


def bundled_portrait() -> Portrait:
    """Return the demo portrait with its landmarks."""
    path = demo_portrait()
    if path is None:
        raise AtlDiffError("export: the demo portrait that networks are tried on was not found; reinstall atldiff")
    image = read_image(path)
    return Portrait(image, detect(image))


def speaking_track(model: Model, portrait: Portrait, frames: int, seed: int) -> LandmarkTrack:
    """Return a made-up track: the generator's displacements swing by tones, about as far as in data."""
    random = np.random.default_rng([seed, 5])
    buffers = buffers_of(model.generator)
    basis = buffers["scale"][:, None, None] * buffers["basis"]  # (M, 478, 3)
    shape, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
    hertz = random.uniform(*SYLLABLES_HZ, (len(basis), _TONES_EACH))
    phase = random.uniform(0, 2 * np.pi, (len(basis), _TONES_EACH, 1))
    moments = np.arange(frames) / FPS
    swings = np.sin(2 * np.pi * hertz[..., None] * moments + phase).sum(axis=1) * (2 / _TONES_EACH) ** 0.5  # (M, T)
    neutral = shape.astype(np.float32)
    displacements = np.einsum("mt,mkd->tkd", swings.astype(np.float32), basis)
    return LandmarkTrack(
        neutral=neutral,
        displacements=meet_lips(neutral, displacements).astype(np.float32),
        rotation=np.tile(rotation.astype(np.float32), (frames, 1, 1)),
        translation=np.tile(translation.astype(np.float32), (frames, 1)),
        scale=np.full(frames, scale, np.float32),
        fps=Fraction(FPS),
        size=(portrait.image.shape[0], portrait.image.shape[1]),
    )
