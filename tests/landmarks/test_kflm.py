from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from atldiff.config import PAPER_PRESETS, KFLMConfig
from atldiff.methods.atl_published.coordinates import MOUTH, denormalise, normalise
from atldiff.methods.atl_published.kflm import KFLM, LandmarkTransformer, landmark_loss

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RELEASED = PAPER_PRESETS["released"].generator
SMALL = KFLMConfig(
    speech_model="any", feature_width=32, feed_forward=64, fusion_width=24, mouth_fusion_width=16, kan_width=48
)


def _independent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_kflm", GOLDEN / "make_kflm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_kflm"] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


make_kflm = _independent()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def released(width: int = 32) -> KFLMConfig:
    sizes = ("feature_width", "feed_forward", "fusion_width", "mouth_fusion_width", "kan_width")
    small = {name: getattr(SMALL, name) for name in sizes}
    return RELEASED if width == 768 else replace(RELEASED, speech_model="any", **small)


def module(config: KFLMConfig, weights: dict[str, np.ndarray] | None = None) -> KFLM:
    kflm = KFLM(config).eval()
    if weights is not None:
        kflm.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return kflm


def inputs(batch: int, width: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.rand(batch, 49, width) * 2 - 1, torch.rand(batch, 68, 2), torch.arange(batch)


# --- the published module -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4])
def test_the_golden_file(batch: int) -> None:
    golden = load_file(GOLDEN / "kflm.safetensors")
    weights = make_kflm.draw_weights(make_kflm.SMALL)
    drawn = np.array([[value.flat[0], value.flat[-1]] for value in weights.values()], np.float32)
    assert np.array_equal(drawn, golden["drawn"]), "the random stream is another one: make the golden file again"
    with torch.inference_mode():
        features, initial, emotion = (torch.from_numpy(golden[n][:batch]) for n in ("features", "initial", "emotion"))
        landmarks = module(released(), weights)(features, initial, emotion)
    assert landmarks.shape == (batch, 30, 68, 2)
    assert golden[f"landmarks_{batch}"].std() > 0.1
    assert np.abs(landmarks.numpy() - golden[f"landmarks_{batch}"]).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_an_independent_forward_at_the_published_sizes(batch: int) -> None:
    sizes = make_kflm.Sizes()
    weights = make_kflm.draw_weights(sizes, seed=1)
    drawn = make_kflm.draw_inputs(sizes, batch, seed=2)
    wanted = make_kflm.forward(weights, sizes, *drawn)
    kflm = module(released(768), weights)
    with torch.inference_mode():
        features, initial, emotion = (torch.from_numpy(value) for value in drawn)
        assert np.abs(kflm(features, initial, emotion).numpy() - wanted["landmarks"]).max() < 1e-5
        said = kflm.face_global(features, initial.transpose(1, 2).flatten(1)).numpy()
        assert np.abs(said - wanted["face_global"]).max() < 1e-5


def test_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        kflm = KFLM(replace(RELEASED, residual=False))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in kflm.named_children()}
    assert {name: round(value / 1e6, 3) for name, value in count.items()} == {
        "face_context": 6.328, "face_global": 6.328, "mouth_global": 5.724, "face_lstm": 0.456, "mouth_lstm": 0.126,
        "face_fusion": 0.474, "face_gate": 0.004, "mouth_fusion": 0.164, "head": 0.696,
    }  # fmt: skip
    assert round(sum(count.values()) / 1e6, 2) == 20.30
    with torch.device("meta"):
        fixed = KFLM(KFLMConfig())
    # A learned emotion is all that the default adds; positions are not learned.
    assert sum(p.numel() for p in fixed.parameters()) - sum(count.values()) == 9 * 768
    assert set(fixed.state_dict()) - set(kflm.state_dict()) == {"emotion_embedding.weight"}


# --- as released: attention over the batch, an inert emotion --------------------------------------------------------


def changed_tokens(block: LandmarkTransformer, batch: int, sample: int, token: int) -> torch.Tensor:
    """Which of (batch, 49) tokens of the block's output move when one token of one sample does."""
    features = torch.rand(batch, 49, 32)
    landmarks = torch.rand(batch, 136)
    other = features.clone()
    other[sample, token] += 1
    with torch.inference_mode():
        return ((block(features, landmarks) - block(other, landmarks)).abs() > 1e-6).any(dim=2)


def test_released_attention_sees_the_batch_and_not_the_time() -> None:
    block = module(released()).face_context
    alone = changed_tokens(block, 1, 0, 10)
    assert alone.nonzero().tolist() == [[0, 10]]
    together = changed_tokens(block, 4, 2, 10)
    assert together.nonzero().tolist() == [[sample, 10] for sample in range(4)]


def test_released_emotion_is_inert_for_one_clip() -> None:
    kflm = module(released())
    features, initial, _ = inputs(1)
    with torch.inference_mode():
        said = [kflm(features, initial, torch.tensor([label])) for label in range(9)]
    assert all(torch.equal(said[0], other) for other in said[1:])


def test_released_emotion_is_a_share_of_the_batch() -> None:
    kflm = module(released())
    felt = kflm._with_emotion(torch.ones(4, 49, 32), torch.tensor([0, 1, 4, 7]))
    assert [round(x, 3) for x in felt[:, 0, 0].tolist()] == [0.001, 0.002, 0.047, 0.950]


# --- fixed: attention over time, a learned emotion ------------------------------------------------------------------


@pytest.mark.parametrize("positions", [False, True])
def test_attention_over_time(positions: bool) -> None:
    changed = changed_tokens(module(replace(SMALL, positions=positions)).face_context, 4, 2, 10)
    assert changed[2].all()
    assert not changed[[0, 1, 3]].any()


def test_order_matters_with_positions_only() -> None:
    features, landmarks = torch.rand(2, 49, 32), torch.rand(2, 136)
    with torch.inference_mode():
        for positions in (False, True):
            block = module(replace(SMALL, positions=positions)).face_global
            difference = (block(features, landmarks) - block(features.flip(1), landmarks)).abs().max()
            assert (difference > 1e-3) == positions


def test_a_learned_emotion_has_an_effect() -> None:
    kflm = module(SMALL)
    features, initial, _ = inputs(1)
    with torch.inference_mode():
        said = [kflm(features, initial, torch.tensor([label])) for label in range(9)]  # the last: no label
    for i in range(9):
        for j in range(i):
            assert (said[i] - said[j]).abs().max() > 1e-7


def test_a_learned_emotion_is_heard_in_the_context_domain_only() -> None:
    kflm = module(SMALL)
    heard: dict[str, torch.Tensor] = {}
    for name in ("face_global", "mouth_global", "face_context", "face_lstm", "mouth_lstm"):
        getattr(kflm, name).register_forward_pre_hook(lambda _, args, name=name: heard.update({name: args[0]}))
    features, initial, emotion = inputs(2)
    kflm(features, initial, emotion)
    for name, value in heard.items():
        felt = features if "global" in name else features + kflm.emotion_embedding.weight[:2, None]
        assert torch.equal(value, felt), name


def test_a_clip_alone_is_a_clip_in_a_batch() -> None:
    kflm = module(SMALL)
    features, initial, emotion = inputs(5)
    with torch.inference_mode():
        together = kflm(features, initial, emotion)
        for i in range(5):
            alone = kflm(features[i : i + 1], initial[i : i + 1], emotion[i : i + 1])
            assert torch.allclose(alone[0], together[i], atol=1e-6)


def test_every_input_and_parameter_matters() -> None:
    config = replace(SMALL, dropout=0.0, frames=25)
    kflm = KFLM(config).train()
    features, initial, emotion = inputs(2)
    features.requires_grad_()
    initial.requires_grad_()
    landmarks = kflm(features, initial, emotion)
    assert landmarks.shape == (2, 25, 68, 2)
    landmark_loss(landmarks, torch.rand_like(landmarks), config.mouth_weight).backward()
    for name, tensor in [("features", features), ("initial", initial), *kflm.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.any(), name


def test_residual_adds_the_initial_landmarks() -> None:
    plain, residual = module(SMALL), module(replace(SMALL, residual=True))
    residual.load_state_dict(plain.state_dict())
    features, initial, emotion = inputs(2)
    with torch.inference_mode():
        difference = residual(features, initial, emotion) - plain(features, initial, emotion)
    assert torch.allclose(difference, initial[:, None].expand_as(difference), atol=1e-6)


# --- loss and coordinates -------------------------------------------------------------------------------------------


def test_the_loss_weighs_the_mouth() -> None:
    target = torch.zeros(2, 30, 68, 2)
    jaw, mouth = target.clone(), target.clone()
    jaw[:, :, 3] = 1
    mouth[:, :, list(MOUTH)] = 1
    assert landmark_loss(jaw, target, 0.8).item() == pytest.approx(0.2 / 68)
    assert landmark_loss(mouth, target, 0.8).item() == pytest.approx(0.2 * 20 / 68 + 0.8)
    assert sorted(MOUTH) == list(range(48, 68))
    assert MOUTH[0] == 49
    assert MOUTH[-1] == 48


def test_the_loss_is_the_mean_of_its_clips() -> None:
    predicted, target = torch.rand(3, 30, 68, 2), torch.rand(3, 30, 68, 2)
    valid = torch.rand(3, 30)
    valid[1, 20:] = 0
    together = landmark_loss(predicted, target, 0.8, valid)
    alone = [landmark_loss(predicted[i : i + 1], target[i : i + 1], 0.8, valid[i : i + 1]) for i in range(3)]
    assert together.item() == pytest.approx(torch.stack(alone).mean().item())
    predicted[1, 20:] += 100
    assert torch.equal(landmark_loss(predicted, target, 0.8, valid), together)
    assert torch.equal(landmark_loss(predicted, target, 0.8, torch.ones(3, 30)), landmark_loss(predicted, target, 0.8))


def test_coordinates() -> None:
    eyes = np.array([[-0.5, 0.0], [0.5, 0.0]])
    assert np.allclose(normalise(eyes, "canonical"), [[0.275, 0.35], [0.725, 0.35]])
    assert np.allclose(normalise(np.array([[127.5, 0.0]]), "window"), [[1.0, 0.0]])
    assert np.allclose(normalise(np.array([[255.0, 51.0]]), "window", side=256), [[1.0, 0.2]])
    points = np.random.default_rng(0).normal(size=(3, 68, 2)).astype(np.float32)
    for coordinates in ("canonical", "window"):
        for side in (128, 96):
            normal = normalise(points, coordinates, side)
            assert normal.dtype == np.float32
            assert np.abs(denormalise(normal, coordinates, side) - points).max() < 1e-5
