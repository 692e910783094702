"""DiffTalker's renderer: what it sees, what it may change, and its loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from atldiff.config import DiffTalkerConfig, LatentRendererConfig, ScheduleConfig, from_dict, to_dict
from atldiff.diffusion import ddim
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIP_GAP_PAIRS, LIPS, LIPS_INNER
from atldiff.methods.difftalker.inputs import build_inputs, drawing, hint_channels
from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
from atldiff.methods.latent_inputs import NEEDED, face_maps
from atldiff.methods.models import painter_of
from atldiff.training.painted import paint_batch
from atldiff.video.window import RIGID_POINTS, TEMPLATE

torch.set_num_threads(1)

FRAMES = 4


def points(opening: float = 0.0, config: LatentRendererConfig = LatentRendererConfig()) -> np.ndarray:  # noqa: B008
    """Return the mean face's landmarks (478, 2) in window pixels, its lower lip and jaw dropped."""
    shape = mean_shape()[:, :2]
    template = TEMPLATE - TEMPLATE.mean(0)
    rigid = shape[list(RIGID_POINTS)]
    scale = np.linalg.norm(template) / np.linalg.norm(rigid - rigid.mean(0))
    face = (shape - rigid.mean(0)) * scale + TEMPLATE.mean(0)
    middle = face[LIP_GAP_PAIRS[:, 0], 1].mean()
    lower = (face[:, 1] > middle)[:, None] * np.array([0.0, 1.0])
    lower[LIPS_INNER[1:10]] = 0
    return ((face + lower * opening) - np.asarray(config.origin)) * (config.resolution / config.side)


def talking(config: LatentRendererConfig = LatentRendererConfig()) -> tuple[np.ndarray, np.ndarray]:  # noqa: B008
    """Return a closed mouth (1, 478, 2), and one that opens over time (1, T, 478, 2)."""
    return points(0, config)[None], np.stack([points(3.0 * t, config) for t in range(FRAMES)])[None]


def picture(side: int = 80, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((10, 10, 3), np.float32) * 2 - 1
    return np.ascontiguousarray(cv2.resize(coarse, (side, side)).transpose(2, 0, 1))[None]


@pytest.fixture(scope="module")
def renderer(random_difftalker_model: DiffTalkerModel) -> LatentRenderer:
    return random_difftalker_model.renderer


def inputs(config: LatentRendererConfig, **given: Any):  # noqa: ANN201
    source, target = talking(config)
    return build_inputs(picture(config.resolution), source[:, NEEDED], target[:, :, NEEDED], config, **given)


@pytest.mark.parametrize(("reference", "channels"), [("both", 12), ("still", 9), ("warped", 9)])
def test_shapes_and_ranges(reference: str, channels: int) -> None:
    config = LatentRendererConfig(reference=reference)  # pyright: ignore[reportArgumentType]
    made = inputs(config)
    assert hint_channels(config) == channels
    assert made.hint.shape == (1, channels, FRAMES, 80, 80)
    assert made.prior.shape == (1, 3, FRAMES, 80, 80)
    for maps in (made.mask, made.mouth):
        assert maps.shape == (1, 1, FRAMES, 80, 80)
        assert 0 <= float(maps.min()) <= float(maps.max()) <= 1
    assert float(made.mask.max()) == 1


def test_the_hidden_target_does_not_tell_how_its_lips_are() -> None:
    """Frames that differ below the nose alone, as far as the face reaches, give one and the same hint."""
    config = LatentRendererConfig()
    _, target = talking(config)
    _, hidden, _ = face_maps(target[0][:, NEEDED].astype(np.float32), config)
    lips = np.round(target[0][:, LIPS]).astype(int)
    for frame in range(FRAMES):
        x, y = lips[frame].T
        assert (hidden[frame][y, x] == 1).all()
    where = hidden[None, None] == 1
    filmed, other = (picture(80, seed)[:, :, None].repeat(FRAMES, 2) for seed in (1, 2))
    changed = np.where(where, other, filmed)
    assert not np.array_equal(changed, filmed)
    assert np.array_equal(inputs(config, seen=filmed).hint, inputs(config, seen=changed).hint)
    assert not np.array_equal(inputs(config, seen=filmed).hint, inputs(config, seen=other).hint)  # the rest is shown


def test_the_drawing_follows_the_lips() -> None:
    _, target = talking()
    maps = drawing(target[0][:, NEEDED].astype(np.float32), (80, 80))
    assert maps.shape == (FRAMES, 3, 80, 80)
    cavity = maps[:, 1].sum(axis=(1, 2))
    assert (np.diff(cavity) > 20).all()
    assert (maps.max(axis=(2, 3)) > 0.9).all()


def test_a_larger_resolution_shows_the_same_window() -> None:
    small, large = LatentRendererConfig(), LatentRendererConfig(resolution=160)
    one, two = inputs(small), inputs(large)
    assert two.mask.shape[-1] == 160
    assert np.abs(two.mask[..., ::2, ::2] - one.mask).mean() < 0.01
    assert np.abs(two.prior[..., ::2, ::2] - one.prior).mean() < 0.05


def render(renderer: LatentRenderer, seed: int = 0, steps: int = 2, opening: float = 1.0):  # noqa: ANN201
    source, target = talking(renderer.config)
    target = source[:, None] + opening * (target - source[:, None])
    painter = painter_of(renderer)
    return painter.render_window(picture(), source, target, painter.window_noise(seed, 0, FRAMES), steps)


def test_only_the_mask_changes(renderer: LatentRenderer) -> None:
    frames, base = render(renderer)
    assert frames.shape == base.shape == (1, 3, FRAMES, 80, 80)
    outside = np.broadcast_to(inputs(renderer.config).mask == 0, frames.shape)
    assert outside.any()
    assert np.array_equal(frames[outside], base[outside])
    assert not np.allclose(frames, base)


def test_seed_steps_and_landmarks_count(renderer: LatentRenderer) -> None:
    frames, _ = render(renderer)
    assert np.array_equal(render(renderer)[0], frames)
    for other in (render(renderer, seed=1), render(renderer, steps=3), render(renderer, opening=0.5)):
        assert not np.allclose(other[0], frames, atol=1e-4)


def test_frames_share_their_noise(renderer: LatentRenderer) -> None:
    painter = painter_of(renderer)
    shared = painter.window_noise(3, 0, FRAMES)
    assert shared.shape == (1, 4, 1, 20, 20)
    assert np.array_equal(painter.window_noise(3, 40, FRAMES), shared)
    own = painter_of(LatentRenderer(replace(renderer.config, noise_over_time="independent")))
    first, later = own.window_noise(3, 0, FRAMES), own.window_noise(3, 2, FRAMES)
    assert first.shape == (1, 4, FRAMES, 20, 20)
    assert np.array_equal(first[:, :, 2:], later[:, :, :2])  # of the video's frames: windows that overlap agree


def test_a_still_mouth_does_not_flicker(renderer: LatentRenderer) -> None:
    frames, _ = render(renderer, opening=0.0)
    # Temporal convolutions see the window's ends; its middle frames, alike from all sides, are alike.
    assert np.allclose(frames[:, :, 1], frames[:, :, 2], atol=0.05)


def test_the_mask_of_arrays_is_the_one_that_training_has(renderer: LatentRenderer) -> None:
    mask = inputs(renderer.config).mask
    latents = painter_of(renderer).latent_mask(mask)  # pyright: ignore[reportAttributeAccessIssue]
    assert latents.shape == (1, 1, FRAMES, 20, 20)
    assert np.array_equal(latents, renderer.latent_mask(torch.from_numpy(mask)))


def batch(renderer: LatentRenderer, items: int = 2) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    made = inputs(renderer.config)
    repeat = lambda x: torch.from_numpy(x).repeat(items, 1, 1, 1, 1)  # noqa: E731
    return {
        "target": repeat(picture(80, 7)[:, :, None].repeat(FRAMES, 2)),
        "prior": repeat(made.prior),
        "hint": repeat(made.hint),
        "mask": repeat(made.mask),
        "mouth": repeat(made.mouth),
        "noise": torch.randn(items, 4, 1, 20, 20, generator=random),
        "level": torch.tensor([999, 400])[:items],
        "guessed": torch.tensor([False, True])[:items],
        "clips": torch.arange(items),
    }


def test_parts_of_a_batch_average_to_its_loss(renderer: LatentRenderer) -> None:
    whole = batch(renderer)
    losses = renderer.loss(whole)
    parts = [renderer.loss({name: x[i : i + 1] for name, x in whole.items()})["loss"] for i in range(2)]
    assert torch.allclose(torch.stack(parts).mean(), losses["loss"], rtol=1e-4)


def test_the_loss_reaches_the_denoiser_and_not_the_codec(random_difftalker_model: DiffTalkerModel) -> None:
    renderer = LatentRenderer(random_difftalker_model.renderer.config)
    renderer.load_state_dict(random_difftalker_model.renderer.state_dict())
    renderer.codec.requires_grad_(False)
    renderer.loss(batch(renderer))["loss"].backward()
    for name, parameter in renderer.denoiser.named_parameters():
        assert parameter.grad is not None, name
    assert renderer.denoiser.branch.stem.weight.grad.abs().sum() > 0  # pyright: ignore
    assert all(parameter.grad is None for parameter in renderer.codec.parameters())


def test_what_the_network_says_outside_the_mask_costs_nothing(renderer: LatentRenderer) -> None:
    given = batch(renderer, 1)
    given["guessed"][:] = False
    said = torch.zeros(1, 4, FRAMES, 20, 20, requires_grad=True)
    renderer.denoiser.forward = lambda *rest: said  # pyright: ignore
    try:
        renderer.loss(given)["loss"].backward()
    finally:
        del renderer.denoiser.forward
    assert said.grad is not None
    inside = (renderer.latent_mask(given["mask"]) > 0).expand_as(said)
    assert inside.any()
    assert not inside.all()
    assert (said.grad[inside] != 0).all()
    assert (said.grad[~inside] == 0).all()


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("reference", ["still", "both"])
def test_a_fresh_network_starts_at_the_warped_portrait_where_it_sees_it(prediction: str, reference: str) -> None:
    torch.manual_seed(0)
    schedule = ScheduleConfig(prediction=prediction, clip_sample=0.0)  # pyright: ignore[reportArgumentType]
    weight = 2.0 if prediction == "sample" else 0.0
    config = LatentRendererConfig(
        reference=reference,
        schedule=schedule,
        pixel_weight=weight,
        widths=(16, 32),
        blocks=(1, 1),
        control_blocks=(1, 1),  # pyright: ignore
    )
    renderer = LatentRenderer(config).eval()
    frames, base = render(renderer, steps=1)
    same = np.allclose(frames, base.clip(-1, 1), atol=1e-4)
    assert same == (prediction == "sample" and reference == "both")
    assert np.isfinite(frames).all()
    assert float(renderer.loss(batch(renderer))["loss"].detach()) > 0


def test_a_guessed_state_is_where_the_samplers_second_step_begins(renderer: LatentRenderer) -> None:
    given = batch(renderer, 1) | {"guessed": torch.tensor([True]), "level": torch.tensor([499])}
    states: list[torch.Tensor] = []
    forward = renderer.denoiser.forward
    renderer.denoiser.forward = lambda x, *rest: states.append(x) or forward(x, *rest)  # pyright: ignore
    try:
        with torch.no_grad():
            renderer.loss(given)
            trained = list(states)
            states.clear()
            paint_batch(painter_of(renderer), given, given["noise"].numpy(), 2)
    finally:
        del renderer.denoiser.forward
    assert ddim.sampling_levels(renderer.config.schedule, 2) == [999, 499]
    assert torch.allclose(trained[0], states[0])
    assert torch.allclose(trained[1], states[1], atol=1e-4)


def test_the_decoded_picture_counts_where_it_may_change(random_difftalker_model: DiffTalkerModel) -> None:
    config = random_difftalker_model.renderer.config
    plain = LatentRenderer(replace(config, pixel_weight=0.0)).eval()
    plain.load_state_dict(random_difftalker_model.renderer.state_dict())
    with torch.no_grad():
        given = batch(plain)
        losses, without = random_difftalker_model.renderer.loss(given), plain.loss(given)
        assert without.keys() == {"loss", "latent_ratio"}
        wanted = without["loss"] + config.pixel_weight * (losses["pixels"] + losses["edges"])
        assert torch.allclose(losses["loss"], wanted, rtol=1e-4)
        brighter = given | {"target": given["target"] + 0.5 * (given["mask"] == 0)}
        darker = given | {"target": given["target"] - 0.5 * (given["mask"] > 0.5)}
        encode = plain.codec.encode
        latents = random_difftalker_model.renderer._picture_errors
        still = encode(given["prior"])
        here = latents(still, given["target"], given["mask"], given["mouth"], given["level"])[0]
        there = latents(still, brighter["target"], given["mask"], given["mouth"], given["level"])[0]
        inside = latents(still, darker["target"], given["mask"], given["mouth"], given["level"])[0]
    assert torch.allclose(here, there)
    assert not torch.allclose(here, inside)


def test_configuration_survives_json() -> None:
    config = DiffTalkerConfig(renderer=LatentRendererConfig(reference="still"))
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ValueError, match="unknown field 'colour'"):
        from_dict(to_dict(config) | {"colour": 1})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "stable-diffusion"}, "base: got '', expected a hub id or folder"),
        ({"resolution": 84}, "resolution: got 84, expected a multiple of 16"),
        ({"reference": "none"}, "reference: got 'none', expected 'warped', 'still' or 'both'"),
        ({"side": 120}, "side: got 120, expected 16 to 96"),
        ({"control_blocks": (1,)}, "control_blocks: got .*, expected 3 numbers"),
        ({"schedule": ScheduleConfig(prediction="epsilon")}, "pixel_weight: got 2.0, expected 0 when"),
        ({"mask_reach_px": 0.0}, "mask_reach_px: got 0.0, expected 1 to 64"),
    ],
)
def test_a_wrong_configuration_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentRendererConfig(**fields)
