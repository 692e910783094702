from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from atldiff.audio.load import load_audio
from atldiff.config import KFLMConfig
from atldiff.errors import CheckpointError
from atldiff.landmarks.geometry import from_canonical, rotation_from_euler
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.speaker import LandmarkBasis
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.landmarks.visible import MotionModel
from atldiff.methods.atl_published import generator as published_generator
from atldiff.methods.atl_published.coordinates import normalise
from atldiff.methods.atl_published.generator import PublishedGenerator
from atldiff.methods.atl_published.speaker import COLUMNS, DenseFit, PublishedSpeaker, SecondStream
from atldiff.methods.build import open_speaker
from atldiff.methods.models import speaker_of
from atldiff.methods.speech import TrackStream
from atldiff.timebase import frame_count
from atldiff.types import Controls, Portrait
from atldiff.video.window import apply, face_window, fit_still_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.methods.generators import Speaker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = KFLMConfig(
    features="log-mel", speech_model="", feature_width=16, feed_forward=16, frames=25, hop_frames=20,
    fusion_width=8, mouth_fusion_width=8, kan_width=8, components=6, residual=True,
)  # fmt: skip
NEUTRAL = mean_shape().astype(np.float32)
GRIDS = [(25, 20), (30, 24), (30, 30), (30, 25), (12, 7), (25, 25)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    """A face turned and tilted, 90 px between its eyes."""
    rotation = rotation_from_euler(np.array(15.0), np.array(-5.0), np.array(8.0))
    points = from_canonical(mean_shape(), rotation, np.array(90.0), np.array([160.0, 140.0, 0.0]))
    return Portrait(np.zeros((320, 320, 3), np.uint8), points.astype(np.float32))


def smooth_basis(components: int) -> torch.Tensor:
    """Displacements (M, 478, 3) of about a fiftieth of the eye distance that vary slowly over the face."""
    random = np.random.default_rng(1)
    waves = np.sin(mean_shape() @ random.normal(0, 3, (components, 3, 3)) + random.uniform(0, 6, (components, 1, 3)))
    return torch.from_numpy(waves).float() * 0.02


def tiny(config: KFLMConfig = TINY) -> PublishedGenerator:
    generator = PublishedGenerator(config).eval()
    generator.basis.copy_(smooth_basis(config.components) * 10)
    generator.scale.fill_(0.1)
    return generator


def clock(config: KFLMConfig, heard: str, say: Callable[..., np.ndarray] | None = None) -> PublishedSpeaker:
    """Predicts frames whose displacement is their own moment in seconds, as heard in the sound."""
    config = replace(config, features="wav2vec2" if heard == "samples" else "log-mel", speech_model="a/name")

    def hearing(*sound: np.ndarray) -> list[np.ndarray]:
        assert sound[0].shape == ((1, 16000) if heard == "samples" else (1, 100, 80))
        return [np.full((1, 49, config.feature_width), sound[0].flat[0])]

    def generator(features: np.ndarray, initial: np.ndarray, emotion: np.ndarray) -> list[np.ndarray]:
        start = features[:, 0, 0]
        moments = start[:, None] + np.arange(config.frames, dtype=np.float32) / config.frames  # (1, T)
        moments = moments if say is None else say(moments)
        step = np.array([0.45, 0.0], np.float32)  # the scale of canonical coordinates
        return [(initial[:, None] + moments[..., None, None] * step).astype(np.float32)]

    directions = np.zeros((config.components, 478, 3), np.float32)
    directions[0, :, 0] = 1
    basis = LandmarkBasis(directions, np.ones(config.components, np.float32))
    return PublishedSpeaker(config, basis, hearing, generator)


class Overheard:
    """A network that keeps what it was given."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.given: list[np.ndarray] = []

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        self.given.append(inputs[0].copy())
        return self.network(*inputs)


def speaking(config: KFLMConfig = TINY) -> PublishedSpeaker:
    return speaker_of(tiny(config))


def pushed(stream: SecondStream, samples: np.ndarray, mel: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Push samples in packets of the sizes, in turn, and the columns that lie behind them; flush."""
    out, at, column = [], 0, 0
    while at < len(samples):
        size = sizes[len(out) % len(sizes)]
        last = min(at + size, len(samples)) // 160
        out.append(stream.push(samples[at : at + size], mel[column:last]))
        at, column = at + size, max(column, last)
    out.append(stream.push(samples[:0], mel[column:]))
    out.append(stream.flush(frame_count(len(samples))))
    return np.concatenate(out)


# --- the generator --------------------------------------------------------------------------------------------------


def test_shapes_of_a_second() -> None:
    generator = tiny()
    mel = torch.randn(3, COLUMNS, 80)
    assert generator.features(mel).shape == (3, 49, 16)
    initial = torch.rand(3, 68, 2)
    landmarks = generator(mel, initial, torch.tensor([0, 7, 8]))
    assert landmarks.shape == (3, 25, 68, 2)
    assert not torch.equal(landmarks, generator(mel + 1, initial, torch.tensor([0, 7, 8])))


class Speech(nn.Module):
    """Stands for wav2vec 2.0: 49 tokens of 16 numbers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.project = nn.Conv1d(1, width, 640, stride=320)
        self.requires_grad_(False)

    def forward(self, samples: torch.Tensor) -> Any:
        self.last_hidden_state = self.project(samples[:, None]).transpose(1, 2)
        return self


def test_a_named_speech_model_is_not_part_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str) -> Speech:
        asked.append(name)
        return Speech()

    monkeypatch.setattr(published_generator, "load_speech_model", load)
    generator = PublishedGenerator(replace(TINY, features="wav2vec2", speech_model="owner/name"))
    assert not asked
    before = set(generator.state_dict())
    samples = torch.randn(2, 16000)
    features = generator.features(samples)
    assert features.shape == (2, 49, 16)
    assert not features.requires_grad
    generator.features(samples)
    assert asked == ["owner/name"]
    assert set(generator.state_dict()) == before
    assert not any("speech" in name or "listen" in name for name in before)
    assert not any("project" in name for name, _ in generator.named_parameters())
    assert copy.deepcopy(generator).features(samples).equal(features)


def test_a_speech_model_of_another_shape_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_generator, "load_speech_model", lambda _: Speech(24))
    generator = PublishedGenerator(replace(TINY, features="wav2vec2", speech_model="owner/name"))
    with pytest.raises(CheckpointError, match=r"owner/name: gives \(49, 24\) features a second, expected \(49, 16\)"):
        generator.features(torch.randn(1, 16000))


def test_a_speech_model_without_a_name_lies_in_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_generator, "new_speech_model", lambda: Speech(768).eval())
    generator = PublishedGenerator(replace(TINY, features="wav2vec2", feature_width=768))
    assert "speech_model.project.weight" in generator.state_dict()
    assert generator.features(torch.randn(1, 16000)).shape == (1, 49, 768)
    generator.train()
    assert generator.kflm.training
    assert not generator.speech_model.training


# --- landmarks to the dense basis -----------------------------------------------------------------------------------


def test_canonical_landmarks_to_coefficients(portrait: Portrait) -> None:
    speaker = speaking()
    fit = DenseFit(speaker, portrait, NEUTRAL)
    assert fit.initial.dtype == np.float32
    assert np.allclose(fit.initial, normalise(NEUTRAL[SIXTY_EIGHT, :2], "canonical"))
    assert np.abs(fit.coefficients(fit.initial)).max() < 1e-4
    wanted = np.array([1.0, -0.5, 0.3, 2.0, 0.0, -1.5])
    moved = NEUTRAL + np.einsum("m,mkd->kd", wanted, speaker.moves)
    found = fit.coefficients(normalise(moved[SIXTY_EIGHT, :2], "canonical").astype(np.float32))
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 0.02


def test_window_landmarks_to_coefficients(portrait: Portrait) -> None:
    generator = tiny(replace(TINY, coordinates="window"))
    # Motion of the points that carry the alignment would be taken for the head's.
    rigid = [168, 197, 5, 4, 33, 133, 362, 263]
    generator.basis[:, rigid] = 0
    speaker = speaker_of(generator)
    fit = DenseFit(speaker, portrait, NEUTRAL)
    geometry = face_window(128)
    matrix = fit_still_window(portrait.landmarks[None].astype(np.float64), geometry)
    assert np.abs(fit.initial - apply(matrix, portrait.landmarks[SIXTY_EIGHT, :2]) * 2 / 255).max() < 1e-4
    assert 0 < fit.initial.min() < fit.initial.max() < 1
    assert np.abs(fit.coefficients(fit.initial)).max() < 1e-3
    wanted = np.array([1.0, -0.5, 0.3, 2.0, 0.0, -1.5])
    moved = NEUTRAL + np.einsum("m,mkd->kd", wanted, speaker.moves)
    rotation = rotation_from_euler(np.array(15.0), np.array(-5.0), np.array(8.0))
    posed = from_canonical(moved, rotation, np.array(90.0), np.array([160.0, 140.0, 0.0]))[SIXTY_EIGHT, :2]
    for roll, size, shift in ((0.0, 1.0, 0.0), (0.2, 1.1, 12.0)):  # the head may move in the picture
        turn = size * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        seen = apply(matrix, (posed - 160) @ turn.T + 160 + shift)
        found = fit.coefficients((seen * 2 / 255).astype(np.float32))
        assert np.abs(found - wanted).max() < 0.05


def test_a_prediction_that_is_no_face_stays_finite(portrait: Portrait) -> None:
    fit = DenseFit(speaking(replace(TINY, coordinates="window")), portrait, NEUTRAL)
    for landmarks in (np.zeros((68, 2), np.float32), np.full((68, 2), 0.5, np.float32), fit.initial * 1e-6):
        assert np.isfinite(fit.coefficients(landmarks)).all()


# --- seconds on a grid ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", ["samples", "columns"])
@pytest.mark.parametrize(("frames", "hop"), GRIDS)
def test_every_frame_is_of_its_own_moment(frames: int, hop: int, heard: str, portrait: Portrait) -> None:
    speaker = clock(replace(TINY, frames=frames, hop_frames=hop), heard)
    total = 3 * 16000 + 700
    samples = np.arange(total, dtype=np.float32) / 16000
    columns = np.repeat(np.arange(frame_count(total) * 4, dtype=np.float32)[:, None] / 100, 80, 1)
    stream = SecondStream(speaker, portrait, NEUTRAL, 8)
    coefficients = pushed(stream, samples, columns, [4000])
    assert coefficients.shape == (frame_count(total), TINY.components)
    moments = np.arange(len(coefficients)) / 25
    # A second that does not start on a whole sample or column starts at the one before.
    tolerance = 1e-3 if hop * 100 % frames == 0 else (2e-3 if heard == "samples" else 1.2e-2)
    assert np.abs(coefficients[:, 0] - moments).max() < tolerance


@pytest.mark.parametrize(("frames", "hop"), GRIDS)
def test_any_packets_give_the_same_bits(frames: int, hop: int, portrait: Portrait) -> None:
    speaker = speaking(replace(TINY, frames=frames, hop_frames=hop))
    random = np.random.default_rng(0)
    for total in (1, 640, 641, 15_999, 16_000, 16_001, 30_000, 44_123):
        samples = random.normal(0, 0.1, total).astype(np.float32)
        mel = random.normal(0, 1, (frame_count(total) * 4, 80)).astype(np.float32)
        offline = SecondStream(speaker, portrait, NEUTRAL, 8)
        whole = np.concatenate([offline.push(samples, mel), offline.flush(frame_count(total))])
        assert whole.shape == (frame_count(total), TINY.components)
        assert np.isfinite(whole).all()
        for sizes in ([640], [16_000], [333, 7001, 12]):
            packets = pushed(SecondStream(speaker, portrait, NEUTRAL, 8), samples, mel, sizes)
            assert packets.tobytes() == whole.tobytes(), (total, sizes)


def test_frames_come_before_the_end(portrait: Portrait) -> None:
    stream = SecondStream(speaking(), portrait, NEUTRAL, 8)
    assert len(stream.push(np.zeros(15_999, np.float32), np.zeros((COLUMNS, 80), np.float32))) == 0
    assert len(stream.push(np.zeros(1, np.float32), np.zeros((0, 80), np.float32))) == 20
    second = stream.push(np.zeros(12_800, np.float32), np.zeros((80, 80), np.float32))
    assert len(second) == 20


@pytest.mark.parametrize("heard", ["samples", "columns"])
def test_the_end_is_heard_as_silence(portrait: Portrait, heard: str) -> None:
    speaker = clock(TINY, heard)
    hearing = Overheard(speaker.hearing)
    stream = SecondStream(replace(speaker, hearing=hearing), portrait, NEUTRAL, 8)
    stream.push(np.ones(6400, np.float32), np.ones((40, 80), np.float32))
    assert len(stream.flush(10)) == 10
    (sound,) = hearing.given
    end, silence = (6400, 0) if heard == "samples" else (40, -3)
    assert (sound[0, :end] == 1).all()
    assert (sound[0, end:] == silence).all()


@pytest.mark.parametrize("heard", ["samples", "columns"])
def test_quiet_speech_is_heard_at_the_level_of_loud(portrait: Portrait, heard: str) -> None:
    speech, given = load_audio(EXAMPLES / "speech.wav").samples[:20_000], []
    for gain in (1, 1e-2, 1e-3):
        speaker = clock(TINY, heard)
        hearing = Overheard(speaker.hearing)
        quiet = replace(speaker, hearing=hearing)
        TrackStream(quiet, portrait, Controls(still=True, blink_rate_hz=0)).push(speech * np.float32(gain))
        given += hearing.given
    loud, quiet, quietest = given
    if heard == "columns":
        assert np.abs(quiet - loud).max() < 0.02
        assert np.abs(quietest - loud).max() < 0.02
        return
    assert np.array_equal(loud[0], speech[:16_000])
    assert np.allclose(quiet, quietest, rtol=1e-3)  # both as loud as is enough
    assert 0.03 < np.abs(quiet).max() < 0.06


def test_shared_frames_are_cross_faded(portrait: Portrait) -> None:
    speaker = clock(TINY, "samples", lambda moments: np.broadcast_to(np.round(moments[:, :1]), moments.shape))
    samples = np.zeros(32_000, np.float32)
    samples[12_800:] = 1  # from the second second on
    out = pushed(SecondStream(speaker, portrait, NEUTRAL, 8), samples, np.zeros((200, 80), np.float32), [32_000])
    assert np.abs(out[:20, 0]).max() < 1e-3
    assert np.abs(out[20:25, 0] - np.arange(1, 6) / 6).max() < 1e-3
    assert np.abs(out[25:, 0] - 1).max() < 1e-3


def test_a_hearing_of_another_shape_is_an_error(portrait: Portrait) -> None:
    speaker = replace(clock(TINY, "columns"), hearing=lambda *sound: [np.zeros((1, 49, 24), np.float32)])
    with pytest.raises(CheckpointError, match=r"gives \(49, 24\) features a second, expected \(49, 16\)"):
        SecondStream(speaker, portrait, NEUTRAL, 8).push(np.zeros(16_000, np.float32), np.zeros((100, 80), np.float32))


def test_a_named_speech_model_is_loaded_when_it_first_hears(
    portrait: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no network of the checkpoint hears, as beside exported ones."""
    asked = []
    monkeypatch.setattr("atldiff.audio.wav2vec.load_speech_model", lambda name: asked.append(name) or Speech())
    config = replace(TINY, features="wav2vec2", speech_model="owner/name")
    generator = tiny(config)
    ours = speaker_of(generator)
    buffers = {"basis": ours.basis.directions, "scale": ours.basis.scale}
    speaker = open_speaker(config, buffers, {"generator": ours.generator})
    stream = SecondStream(speaker, portrait, NEUTRAL, 8)
    assert not asked
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    said = stream.push(samples, np.zeros((200, 80), np.float32))
    assert asked == ["owner/name"]
    assert said.std(axis=0).max() > 0


# --- a track --------------------------------------------------------------------------------------------------------


def track(speaker: Speaker, portrait: Portrait, controls: Controls, packet: int) -> np.ndarray:
    stream = TrackStream(speaker, portrait, controls)
    samples = load_audio(EXAMPLES / "speech.wav").samples[4_000:40_100]
    pieces = [stream.push(samples[at : at + packet]) for at in range(0, len(samples), packet)]
    return np.concatenate([piece.displacements for piece in [*pieces, stream.flush()]])


@pytest.mark.parametrize("coordinates", ["canonical", "window"])
def test_a_track_of_the_paper_generator(coordinates: Any, portrait: Portrait) -> None:
    generator = speaking(replace(TINY, coordinates=coordinates))
    whole = track(generator, portrait, Controls(still=True, blink_rate_hz=0), 36_100)
    assert whole.shape == (57, 478, 3)
    assert whole.std(axis=0).max() > 1e-5
    assert track(generator, portrait, Controls(still=True, blink_rate_hz=0), 1111).tobytes() == whole.tobytes()
    for emotion in ("happy", "neutral"):
        assert (
            np.abs(
                track(generator, portrait, Controls(still=True, blink_rate_hz=0, emotion=emotion), 36_100) - whole
            ).max()
            > 1e-7
        )


def test_the_gain_is_the_generators_own(portrait: Portrait, random_model: Any) -> None:
    assert speaker_of(random_model.generator).amplitude == 1.5
    speaker = speaking()
    assert speaker.amplitude == 1.5
    assert speaking(replace(TINY, coordinates="window")).amplitude == 1.0  # released weights speak as they do

    class Twice(PublishedSpeaker):
        amplitude = 3.0

    twice = Twice(speaker.config, speaker.basis, speaker.hearing, speaker.generator)
    controls = Controls(still=True, blink_rate_hz=0)
    at_rest = track(speaker, portrait, replace(controls, expression_scale=0.0), 36_100)
    once, doubled = (track(each, portrait, controls, 36_100) - at_rest for each in (speaker, twice))
    # Lips that would cross are laid on one another afterwards: the forehead tells.
    assert np.abs(once[:, 10]).max() > 1e-3
    assert np.abs(doubled[:, 10] - 2 * once[:, 10]).max() < 1e-5


def test_emotions_that_are_not_known_are_errors(portrait: Portrait, random_model: Any) -> None:
    happy = Controls(emotion="happy")
    visible = MotionModel(NEUTRAL, Controls(still=True, blink_rate_hz=0), np.eye(3), 1.0, np.zeros(3))
    with pytest.raises(ValueError, match="emotion: got 'happy', but atl-diff was not trained with emotions"):
        speaker_of(random_model.generator).open(portrait, NEUTRAL, happy, visible)
    few = speaking(replace(TINY, emotions=4))
    with pytest.raises(ValueError, match="emotion: got 'happy', expected one of angry, fear, sad, contempt$"):
        few.open(portrait, NEUTRAL, happy, visible)
    plain = track(few, portrait, Controls(still=True, blink_rate_hz=0), 36_100)  # of a whole track the landmarks say it
    assert (
        0.03
        < np.abs(track(few, portrait, Controls(still=True, blink_rate_hz=0, emotion="happy"), 36_100) - plain).max()
        < 0.15
    )
    few.open(portrait, NEUTRAL, Controls(emotion="sad"), visible)
    few.open(portrait, NEUTRAL, Controls(), visible)
