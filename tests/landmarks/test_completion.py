from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from atldiff.config import CompletionConfig
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.landmarks.completion_points import (
    COMPLETED,
    COMPLETED_131,
    FILMED,
    MADE_UP,
    MISSING,
    SEEN_68,
    SEEN_131,
    SEEN_DENSE,
    SEEN_LIMIT,
    closest,
    completed_indices,
    jaw_count,
    seen_indices,
    seen_tokens,
)
from atldiff.landmarks.generator import STATE
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.speaker import CompletionSpeaker
from atldiff.landmarks.stream import BLOCK_FRAMES, NO_SAMPLES, whole
from atldiff.landmarks.topology import IP_LAP, JAW, LIPS, LIPS_INNER, LIPS_OUTER
from atldiff.methods.models import speaker_of
from atldiff.timebase import HOP_SAMPLES, MEL_BANDS, SAMPLES_PER_FRAME

torch.set_num_threads(1)

POINTS = pytest.mark.parametrize("points", ["dense", "sixty-eight", "ip-lap"])
FEATURES = pytest.mark.parametrize("features", ["mel", "whisper"])
FRAMES = 12


def generator(points: str, features: str = "mel") -> CompletionGenerator:
    torch.manual_seed(0)
    config = CompletionConfig(
        points=points,
        features=features,
        width=32,
        layers=1,
        heads=2,
        feed_forward=32,
        components=6,  # pyright: ignore
    )
    made = CompletionGenerator(config)
    with torch.no_grad():
        made.basis.normal_(0, 0.02)
        made.basis.mul_(torch.from_numpy(lower_face())[:, None])
        made.identity_basis.normal_(0, 0.05)
    return made.eval()


def speaking(made: CompletionGenerator) -> CompletionSpeaker:
    """Its speaker; of features `whisper`, it hears by `hear`."""
    speaker = speaker_of(made)
    return speaker if speaker.hear is None else replace(speaker, hear=hear)


def said_of(speaker: CompletionSpeaker, seen: Filmed | None, samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    neutral, mel = mean_shape().astype(np.float32), np.zeros((len(peaks), MEL_BANDS), np.float32)
    return whole(speaker.stream(neutral, seen), samples, mel, peaks)


def given(made: CompletionGenerator, seed: int = 1) -> dict[str, torch.Tensor]:
    random, mel = torch.Generator().manual_seed(seed), made.config.features == "mel"
    return {
        "sound": torch.randn(2, *((4 * FRAMES, 80) if mel else (FRAMES, STATE)), generator=random),
        "seen": torch.randn(2, FRAMES, 3 * len(seen_indices(made.config)) + 3, generator=random),
        "identity": torch.randn(2, 8, generator=random),
        "heard": torch.tensor([True, True]),
        "filmed": torch.tensor([0, 0]),
    }


@dataclass
class Filmed:
    """A face that moves by its frame number."""

    driven: bool = True

    def seen(self, frames: np.ndarray) -> np.ndarray:
        moved = np.sin(np.maximum(frames, 0)[:, None, None] * 0.3 + np.arange(478)[None, :, None]) * 0.02
        return np.repeat(moved, 3, axis=2).astype(np.float32)

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        return self.seen(frames)

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        return np.repeat(np.sin(np.maximum(frames, 0) * 0.1)[:, None], 3, axis=1) * 4

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise NotImplementedError


def test_the_split_of_the_sixty_eight_points() -> None:
    assert len(SEEN_68) == 39
    assert len(COMPLETED) == 29
    assert sorted([*SEEN_68, *COMPLETED]) == list(range(68))
    assert not lower_face()[SEEN_DENSE].any()  # what generators move is not shown to them


def test_the_split_of_ip_laps_points() -> None:
    """The figures of IP_LAP: 131 points, a jaw of 17 and lips of 40 completed after 74 that are visible."""
    assert len(set(IP_LAP.tolist())) == 131
    assert (len(SEEN_131), len(COMPLETED_131)) == (74, 57)
    assert sorted([*SEEN_131, *COMPLETED_131]) == list(range(131))
    config = CompletionConfig(points="ip-lap")
    jaw, mouth = np.split(completed_indices(config), [jaw_count(config)])
    assert set(jaw.tolist()) <= set(JAW.tolist())
    assert jaw[8] == 152  # the chin is its middle
    assert mouth.tolist() == [*LIPS_OUTER, *LIPS_INNER]
    assert not set(seen_indices(config).tolist()) & {*jaw.tolist(), *LIPS.tolist()}


@FEATURES
@POINTS
def test_shapes(points: str, features: str) -> None:
    made = generator(points, features)
    said = made.complete(**given(made))
    shapes = {"dense": (6,), "sixty-eight": (29, 2), "ip-lap": (57, 2)}
    assert said.shape == (2, FRAMES, *shapes[points])
    assert made.coefficients(said).shape == (2, FRAMES, 6)


@FEATURES
@POINTS
@pytest.mark.parametrize("what", ["sound", "seen", "identity"])
def test_every_modality_counts(points: str, what: str, features: str) -> None:
    made = generator(points, features)
    said = made.complete(**given(made))
    other = given(made) | {what: given(made, seed=2)[what]}
    assert (made.complete(**other) - said).abs().max() > 1e-4


@FEATURES
@POINTS
def test_what_is_missing_does_not_count(points: str, features: str) -> None:
    made = generator(points, features)
    deaf = given(made) | {"heard": torch.tensor([False, False])}
    blind = given(made) | {"filmed": torch.tensor([2, 2])}
    assert torch.equal(made.complete(**deaf), made.complete(**deaf | {"sound": given(made, 2)["sound"]}))
    assert torch.equal(made.complete(**blind), made.complete(**blind | {"seen": given(made, 2)["seen"]}))
    made_up = given(made) | {"filmed": torch.tensor([1, 1])}
    assert not torch.allclose(made.complete(**made_up), made.complete(**given(made)))  # it is told which is which


@POINTS
def test_clips_of_a_batch_do_not_mix(points: str) -> None:
    made = generator(points)
    both = given(made) | {"heard": torch.tensor([True, False]), "filmed": torch.tensor([0, 2])}
    whole_batch = made.complete(**both)
    for item in range(2):
        alone = made.complete(**{name: value[item : item + 1] for name, value in both.items()})
        assert torch.allclose(alone, whole_batch[item : item + 1], atol=1e-5)


@pytest.mark.parametrize("points", ["sixty-eight", "ip-lap"])
def test_points_that_the_basis_made_give_their_coefficients_back(points: str) -> None:
    made = generator(points)
    wanted = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(3))
    moved = torch.einsum("btm,mkd->btkd", wanted * made.scale, made.basis)
    completed = moved[:, :, completed_indices(made.config), :2]
    assert torch.allclose(made.coefficients(completed), wanted, atol=0.05)
    solve = closest(speaking(made).moves, made.config)
    assert np.allclose(completed[0].flatten(1).numpy() @ solve.T, made.coefficients(completed)[0].numpy(), atol=1e-5)


@POINTS
@pytest.mark.parametrize("seen", [None, Filmed(), Filmed(driven=False)], ids=["unseen", "filmed", "made up"])
def test_a_stream_gives_a_files_coefficients_bit_for_bit(points: str, seen: Filmed | None) -> None:
    made, frames = speaking(generator(points)), 37
    mel = np.random.default_rng(0).normal(size=(4 * frames, 80)).astype(np.float32)
    neutral = mean_shape().astype(np.float32)
    offline = whole(made.stream(neutral, seen), NO_SAMPLES, mel)
    assert offline.shape == (frames, 6)
    random = np.random.default_rng(1)
    stream, parts, at = made.stream(neutral, seen), [], 0
    while at < len(mel):
        size = int(random.integers(1, 40))
        parts.append(stream.push(NO_SAMPLES, mel[at : at + size]))
        at += size
    parts.append(stream.flush(frames))
    assert np.array_equal(np.concatenate(parts), offline)


def hear(samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Something that hears by the loudest peak, in place of a speech encoder."""
    frames = len(samples) // SAMPLES_PER_FRAME
    assert len(peaks) == 4 * frames
    level = np.float32(10 ** (-max(float(peaks.max()), -60.0) / 20))
    rows = samples.reshape(frames, SAMPLES_PER_FRAME) * level
    return np.concatenate([rows, np.square(rows).cumsum(0)], axis=1)[:, :STATE]


def make_sound(frames: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    peaks = random.uniform(-40, -20, 4 * frames).astype(np.float32)
    return random.normal(0, 0.1, frames * SAMPLES_PER_FRAME).astype(np.float32), peaks


@POINTS
@pytest.mark.parametrize("seen", [None, Filmed(), Filmed(driven=False)], ids=["unseen", "filmed", "made up"])
def test_a_stream_of_samples_gives_a_files_coefficients_bit_for_bit(points: str, seen: Filmed | None) -> None:
    made, frames = speaking(generator(points, "whisper")), 37
    samples, peaks = make_sound(frames)
    offline = said_of(made, seen, samples, peaks)
    assert offline.shape == (frames, 6)
    assert offline.std(axis=0).min() > 1e-3
    random = np.random.default_rng(1)
    stream, parts, heard, told = made.stream(mean_shape().astype(np.float32), seen), [], 0, 0
    while told < len(peaks):
        size = int(random.integers(1, 5000))
        upto = min((heard + size) // HOP_SAMPLES, len(peaks))
        parts.append(stream.push(samples[heard : heard + size], np.zeros((0, MEL_BANDS), np.float32), peaks[told:upto]))
        heard, told = heard + size, upto
    parts.append(stream.flush(frames))
    assert np.array_equal(np.concatenate(parts), offline)


def test_samples_beyond_the_look_ahead_change_nothing_and_those_within_it_do() -> None:
    made = speaking(generator("dense", "whisper"))
    samples, peaks = make_sound(40)

    def said(sound: np.ndarray) -> np.ndarray:
        return said_of(made, Filmed(driven=False), sound, peaks)

    first = said(samples)[:BLOCK_FRAMES]
    horizon = (BLOCK_FRAMES + made.config.lookahead_frames) * SAMPLES_PER_FRAME
    after, before = samples.copy(), samples.copy()
    after[horizon:] += 0.3
    before[horizon - 9] += 0.3
    assert np.array_equal(said(after)[:BLOCK_FRAMES], first)
    assert not np.array_equal(said(before)[:BLOCK_FRAMES], first)


def test_states_are_standardised_and_what_is_completed_has_a_gain() -> None:
    made = generator("dense", "whisper")
    inputs = given(made)
    said = made.complete(**inputs)
    made.state_mean.fill_(3.0)
    made.state_scale.fill_(0.5)
    assert torch.allclose(made.complete(**inputs | {"sound": 2 * inputs["sound"] + 3}), said, atol=1e-4)
    made.gain.copy_(torch.tensor([1.1, 1.2, 1.3]))
    for kind, gain in ((FILMED, 1.1), (MADE_UP, 1.2), (MISSING, 1.3)):
        assert torch.allclose(made.opened(said, torch.tensor([kind, kind])), gain * said)
        assert torch.allclose(made(**inputs | {"filmed": torch.tensor([kind, kind])})[0],
                              gain * made.complete(**inputs | {"filmed": torch.tensor([kind, kind])})[0])  # fmt: skip
    assert speaking(made).amplitude == 1
    mel = generator("dense")
    assert torch.equal(mel.opened(said, torch.tensor([0, 2])), said)
    assert speaking(mel).amplitude == 1.7


@pytest.mark.parametrize(("seen", "kind"), [(None, MISSING), (Filmed(), FILMED), (Filmed(driven=False), MADE_UP)])
def test_a_stream_has_the_gain_of_what_it_sees(seen: Filmed | None, kind: int) -> None:
    made = generator("dense", "whisper")
    before = said_of(speaking(made), seen, *make_sound(12))
    made.gain[kind] = 2.0
    after = said_of(speaking(made), seen, *make_sound(12))
    assert np.allclose(after, 2 * before, atol=1e-6)


@POINTS
def test_a_stream_sees_the_landmarks_of_its_own_frames(points: str) -> None:
    """What is seen at a frame reaches the mouth from the context before it to the look-ahead after it, no further."""
    made, frames, at = speaking(generator(points)), 64, 40
    mel = np.zeros((4 * frames, 80), np.float32)
    neutral = mean_shape().astype(np.float32)

    class Twitching(Filmed):
        def seen(self, frames: np.ndarray) -> np.ndarray:
            return np.where((frames == at)[:, None, None], np.float32(0.1), super().seen(frames))

    calm, twitch = (whole(made.stream(neutral, face), NO_SAMPLES, mel) for face in (Filmed(), Twitching()))
    changed = np.flatnonzero(np.abs(calm - twitch).max(axis=1) > 1e-6)
    assert at in changed
    config = made.config
    assert changed.min() >= at - config.lookahead_frames - 7  # blocks of eight frames look ahead together
    assert changed.max() <= at + config.context_frames + 7


def test_what_is_seen_is_cut_to_its_range() -> None:
    wild = seen_tokens(np.full((4, 64, 3), 50.0), np.full((4, 3), -900.0))
    assert wild.shape == (4, 64 * 3 + 3)
    assert wild.dtype == np.float32
    assert float(wild.max()) == SEEN_LIMIT
    assert float(wild.min()) == -SEEN_LIMIT


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": "131"}, "points: got '131', expected 'dense', 'sixty-eight' or 'ip-lap'"),
        ({"width": 30}, "width: got 30, expected a multiple of 8 in 16 to 2048"),
        ({"layers": 0}, "layers: got 0, expected 1 to 24"),
        ({"features": "wav2vec2"}, "features: got 'wav2vec2', expected 'mel' or 'whisper'"),
        ({"whisper_layers": 5}, "whisper_layers: got 5, expected 1 to 4"),
        ({"lookahead_frames": 33}, "lookahead_frames: got 33, expected 0 to 32"),
    ],
)
def test_a_wrong_configuration_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompletionConfig(**fields)
