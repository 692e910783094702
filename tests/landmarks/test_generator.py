from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from atldiff.config import GeneratorConfig
from atldiff.landmarks.generator import STATE, FoldedNetworks, Generator
from atldiff.landmarks.speaker import GeneratorSpeaker, LandmarkBasis
from atldiff.landmarks.stream import BLOCK_FRAMES, NO_SAMPLES, SILENT, whole
from atldiff.methods.models import speaker_of
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, MEL_BANDS, SAMPLES_PER_FRAME

torch.set_num_threads(1)

CONFIG = GeneratorConfig(components=6, identity_components=4, width=16, blocks=1, context_frames=6, lookahead_frames=3)


NO_COLUMNS = np.zeros((0, MEL_BANDS), np.float32)


def make_generator(config: GeneratorConfig = CONFIG, seed: int = 0) -> Generator:
    """A generator none of whose parts is zero, so that every path to the output carries something."""
    torch.manual_seed(seed)
    generator = Generator(config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        generator.basis.normal_(0, 0.02)
        generator.scale.uniform_(0.5, 2.0)
        generator.identity_mean.normal_()
        generator.identity_basis.normal_(0, 0.03)
    return generator.eval()


def make_mel(frames: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(-3, 0.5, (frames * COLUMNS_PER_FRAME, MEL_BANDS)).astype(np.float32)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator()


@pytest.fixture(scope="module")
def neutral(generator: Generator) -> np.ndarray:
    return generator.identity_mean.numpy() + np.random.default_rng(9).normal(0, 0.5, (478, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def speaker(generator: Generator) -> GeneratorSpeaker:
    return speaker_of(generator)


def predict(speaker: GeneratorSpeaker, mel: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    return whole(speaker.stream(neutral), NO_SAMPLES, mel)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 7), (3, 16)])
def test_shapes(generator: Generator, batch: int, frames: int) -> None:
    mel = torch.randn(batch, frames * COLUMNS_PER_FRAME, MEL_BANDS)
    assert generator(mel, torch.randn(batch, 4)).shape == (batch, frames, 6)
    assert generator.predictions(mel, torch.randn(batch, 4)).shape == (CONFIG.members, batch, frames, 6)


def test_coefficients_are_the_mean_of_the_members(generator: Generator) -> None:
    mel, identity = torch.randn(2, 20, MEL_BANDS), torch.randn(2, 4)
    each = generator.predictions(mel, identity)
    assert (each[0] - each[1]).abs().max() > 1e-2
    assert torch.allclose(generator(mel, identity), each.mean(0), atol=1e-6)


def test_what_a_coefficient_moves_is_its_scale_of_a_direction(generator: Generator) -> None:
    moves = LandmarkBasis.of({"basis": generator.basis.numpy(), "scale": generator.scale.numpy()}).moves
    assert moves.dtype == np.float32
    assert np.array_equal(moves[2], (generator.scale[2] * generator.basis[2]).numpy())
    assert np.array_equal(speaker_of(generator).moves, moves)


def test_a_speaker_has_the_bases_of_its_moment_and_the_weights_of_now() -> None:
    generator = make_generator(seed=5)
    speaker, mel = speaker_of(generator), make_mel(4)
    said = predict(speaker, mel, np.zeros((478, 3), np.float32))
    moves = speaker.moves.copy()
    with torch.no_grad():
        generator.basis.zero_()
        for network in generator.networks.children():
            network.out.bias.add_(1.0)  # pyright: ignore
    assert np.array_equal(speaker.moves, moves)
    assert np.allclose(predict(speaker, mel, np.zeros((478, 3), np.float32)), said + 1, atol=1e-5)


def test_description_is_zero_at_the_mean_and_bounded(generator: Generator, speaker: GeneratorSpeaker) -> None:
    shapes, mean, basis = speaker.shapes, generator.identity_mean.numpy(), generator.identity_basis.numpy()
    assert not shapes.describe(mean[None]).any()
    near = shapes.describe((mean + 0.01 * basis[1])[None])
    assert near.dtype == np.float32
    assert np.allclose(near[0], 0.01 * (basis[1] * basis).sum((1, 2)), atol=1e-5)
    far = shapes.describe((mean + 1000 * np.random.default_rng(0).normal(size=(478, 3)))[None])
    assert np.abs(far).max() == 3
    both = shapes.describe(np.stack([mean, mean + 0.01 * basis[1]]))
    assert np.array_equal(both[1:], near)
    assert not both[0].any()


def test_zero_identity_components_work() -> None:
    speaker = speaker_of(make_generator(GeneratorConfig(components=4, identity_components=0, width=16, blocks=1)))
    assert predict(speaker, make_mel(3), np.zeros((478, 3), np.float32)).shape == (3, 4)


def test_what_is_heard_and_who_speaks_matter(speaker: GeneratorSpeaker, neutral: np.ndarray) -> None:
    mel = make_mel(20)
    said = predict(speaker, mel, neutral)
    assert np.abs(predict(speaker, make_mel(20, 1), neutral) - said).max() > 1e-2
    assert np.abs(predict(speaker, mel, neutral + 0.3) - said).max() > 1e-3
    assert said.std(axis=0).min() > 1e-3  # and it moves over time


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 24, 37])
def test_any_packets_give_the_file_s_coefficients_bit_for_bit(
    speaker: GeneratorSpeaker, neutral: np.ndarray, frames: int
) -> None:
    mel = make_mel(frames, frames)
    whole = predict(speaker, mel, neutral)
    assert whole.shape == (frames, 6)
    random = np.random.default_rng(frames)
    for largest in (3, 40, 200):
        stream, at, parts = speaker.stream(neutral), 0, []
        while at < len(mel):
            size = int(random.integers(0, largest))
            parts.append(stream.push(NO_SAMPLES, mel[at : at + size]))
            at += size
        parts.append(stream.flush(frames))
        assert np.array_equal(np.concatenate(parts), whole)


def test_frames_come_in_blocks_as_soon_as_their_audio_is_complete(
    speaker: GeneratorSpeaker, neutral: np.ndarray
) -> None:
    """Four at a time: a block ends where a window does."""
    stream = speaker.stream(neutral)
    mel, at = make_mel(40), 0
    for block in range(3):
        needed = ((block + 1) * BLOCK_FRAMES + CONFIG.lookahead_frames) * COLUMNS_PER_FRAME
        assert len(stream.push(NO_SAMPLES, mel[at : needed - 1])) == 0
        assert len(stream.push(NO_SAMPLES, mel[needed - 1 : needed])) == BLOCK_FRAMES
        at = needed


def test_audio_beyond_the_look_ahead_cannot_change_a_frame(speaker: GeneratorSpeaker, neutral: np.ndarray) -> None:
    mel = make_mel(40)
    said = predict(speaker, mel, neutral)
    for block in (0, 1, 2):
        end = (block + 1) * BLOCK_FRAMES
        horizon = (end + CONFIG.lookahead_frames) * COLUMNS_PER_FRAME
        after, before = mel.copy(), mel.copy()
        after[horizon:] += 1.0
        before[horizon - 2] += 1.0
        frames = slice(end - BLOCK_FRAMES, end)
        assert np.array_equal(predict(speaker, after, neutral)[frames], said[frames])
        changed = predict(speaker, before, neutral)[frames]
        assert not np.array_equal(changed, said[frames])  # what lies within it is used


def test_audio_before_the_context_cannot_change_a_frame(speaker: GeneratorSpeaker, neutral: np.ndarray) -> None:
    mel = make_mel(32)
    other = mel.copy()
    other[: (24 - CONFIG.context_frames) * COLUMNS_PER_FRAME] = 0.0
    said, changed = (predict(speaker, columns, neutral) for columns in (mel, other))
    assert np.array_equal(said[24:], changed[24:])
    assert not np.array_equal(said[:8], changed[:8])


def test_silence_surrounds_a_recording(speaker: GeneratorSpeaker, neutral: np.ndarray) -> None:
    mel = make_mel(12)
    padded = np.concatenate([mel, np.full((8 * COLUMNS_PER_FRAME, MEL_BANDS), SILENT, np.float32)])
    assert np.array_equal(predict(speaker, padded, neutral)[:12], predict(speaker, mel, neutral))


def test_gradients_reach_every_parameter() -> None:
    generator = make_generator().train()
    moved = generator(torch.randn(2, 32, MEL_BANDS), torch.randn(2, 4))
    moved.square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


HEARING = replace(CONFIG, features="whisper", members=3)


@pytest.fixture(scope="module")
def hearing() -> Generator:
    return make_generator(HEARING)


def folded(generator: Generator) -> FoldedNetworks:
    assert isinstance(generator.networks, FoldedNetworks)
    return generator.networks


def one_of(networks: FoldedNetworks, member: int) -> FoldedNetworks:
    """Return one member by itself, as a network of one."""
    alone = FoldedNetworks(replace(HEARING, members=1))
    parts = {}
    for name, tensor in networks.state_dict().items():
        one = alone.state_dict()[name]
        parts[name] = tensor if tensor.shape == one.shape else tensor.chunk(networks.members)[member]
    alone.load_state_dict(parts)
    return alone.eval()


def test_folded_networks_are_the_mean_of_each_by_itself(hearing: Generator) -> None:
    networks = folded(hearing)
    states, identity = torch.randn(2, 17, STATE), torch.randn(2, HEARING.identity_components)
    alone = torch.stack([one_of(networks, member)(states, identity) for member in range(HEARING.members)])
    assert torch.allclose(networks.predictions(states, identity), alone, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 0.1  # they are not the same three times
    assert torch.allclose(networks(states, identity), alone.mean(0), atol=1e-5)


def test_only_what_a_block_needs_is_computed_and_nothing_else_changes() -> None:
    """The block's frames, from a window whose other frames are computed to the end."""
    config = replace(HEARING, blocks=3, kernel=5)
    networks = folded(make_generator(config, 3))
    states, identity = torch.randn(2, 17, STATE), torch.randn(2, HEARING.identity_components)
    said = networks.predictions(states, identity)
    assert said.shape == (3, 2, 8, config.components)
    networks.context = networks.lookahead = 0
    assert torch.allclose(networks.predictions(states, identity)[:, :, 6:14], said, atol=1e-5)


def test_a_member_learns_as_if_it_were_alone(hearing: Generator) -> None:
    networks = make_generator(HEARING, 1).networks.train()
    assert isinstance(networks, FoldedNetworks)
    states, identity = torch.randn(1, 17, STATE), torch.randn(1, HEARING.identity_components)
    networks.predictions(states, identity)[1].square().sum().backward()
    for name, parameter in networks.named_parameters():
        assert parameter.grad is not None, name
        first, own, last = (part.abs().max() for part in parameter.grad.chunk(3))
        assert own > 0, name
        assert first == last == 0, name


def test_states_are_standardised_and_predictions_have_a_gain() -> None:
    networks = folded(make_generator(HEARING, 2))
    states, identity = torch.randn(1, 17, STATE), torch.zeros(1, HEARING.identity_components)
    before = networks(states, identity)
    networks.state_mean.fill_(3.0)
    networks.state_scale.fill_(0.5)
    assert torch.allclose(networks(2 * states + 3, identity), before, atol=1e-4)
    networks.gain.fill_(1.7)
    assert torch.allclose(networks(2 * states + 3, identity), 1.7 * before, atol=1e-4)
    assert torch.allclose(networks.predictions(2 * states + 3, identity).mean(0), before, atol=1e-4)


def hear(samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Something that hears by the loudest peak, in place of a speech encoder."""
    frames = len(samples) // SAMPLES_PER_FRAME
    assert len(peaks) == frames * COLUMNS_PER_FRAME
    level = np.float32(10 ** (-max(float(peaks.max()), -60.0) / 20))
    rows = samples.reshape(frames, SAMPLES_PER_FRAME) * level
    return np.concatenate([rows, np.square(rows).cumsum(0)], axis=1)[:, :STATE]


@pytest.fixture(scope="module")
def listening(hearing: Generator) -> GeneratorSpeaker:
    return replace(speaker_of(hearing), hear=hear)


def predict_from(speaker: GeneratorSpeaker, sound: tuple[np.ndarray, np.ndarray], neutral: np.ndarray) -> np.ndarray:
    samples, peaks = sound
    return whole(speaker.stream(neutral), samples, np.zeros((len(peaks), MEL_BANDS), np.float32), peaks)


def make_sound(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    peaks = random.uniform(-40, -20, frames * COLUMNS_PER_FRAME).astype(np.float32)
    return random.normal(0, 0.1, frames * SAMPLES_PER_FRAME).astype(np.float32), peaks


@pytest.mark.parametrize("frames", [1, 7, 24, 37])
def test_any_packets_of_samples_give_the_file_s_coefficients_bit_for_bit(
    listening: GeneratorSpeaker, neutral: np.ndarray, frames: int
) -> None:
    samples, peaks = make_sound(frames, frames)
    whole = predict_from(listening, (samples, peaks), neutral)
    assert whole.shape == (frames, 6)
    random = np.random.default_rng(frames)
    for largest in (300, 5000):
        stream, heard, told, parts = listening.stream(neutral), 0, 0, []
        while told < len(peaks):
            size = int(random.integers(0, largest))
            # Columns are made of samples that have come; how many at once is the features' business.
            upto = min((heard + size) // HOP_SAMPLES, len(peaks))
            parts.append(stream.push(samples[heard : heard + size], NO_COLUMNS, peaks[told:upto]))
            heard, told = heard + size, upto
        parts.append(stream.flush(frames))
        assert np.array_equal(np.concatenate(parts), whole)


def test_samples_beyond_the_look_ahead_cannot_change_a_frame(listening: GeneratorSpeaker, neutral: np.ndarray) -> None:
    samples, peaks = make_sound(40)
    said = predict_from(listening, (samples, peaks), neutral)
    for end in (BLOCK_FRAMES, 2 * BLOCK_FRAMES):
        horizon = end + HEARING.lookahead_frames
        after, before = samples.copy(), samples.copy()
        after[horizon * SAMPLES_PER_FRAME :] += 0.3
        before[horizon * SAMPLES_PER_FRAME - 9] += 0.3
        frames = slice(end - BLOCK_FRAMES, end)
        assert np.array_equal(predict_from(listening, (after, peaks), neutral)[frames], said[frames])
        assert not np.array_equal(predict_from(listening, (before, peaks), neutral)[frames], said[frames])


def test_zeros_surround_a_recording_of_samples(listening: GeneratorSpeaker, neutral: np.ndarray) -> None:
    samples, peaks = make_sound(12)
    longer = np.pad(samples, (0, 8 * SAMPLES_PER_FRAME)), np.pad(peaks, (0, 32), constant_values=-200.0)
    said = predict_from(listening, (samples, peaks), neutral)
    assert np.array_equal(predict_from(listening, longer, neutral)[:12], said)


def test_a_stream_of_samples_wants_their_level(listening: GeneratorSpeaker, neutral: np.ndarray) -> None:
    with pytest.raises(ValueError, match="peaks: got None"):
        listening.stream(neutral).push(make_sound(2)[0], NO_COLUMNS)


def test_the_gain_is_that_of_what_is_heard(speaker: GeneratorSpeaker, listening: GeneratorSpeaker) -> None:
    assert (speaker.amplitude, listening.amplitude) == (1.5, 1)
