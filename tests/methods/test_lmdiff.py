"""LMDiff's renderer: what it sees, what it may change, its loss, and the way from the loss to the landmarks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from atldiff.config import LMDIFF_PRESETS, LMDiffConfig, TalkRendererConfig, from_dict, to_dict
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IP_LAP, LIP_GAP_PAIRS, LIPS, LIPS_INNER
from atldiff.methods.lmdiff.inputs import NEEDED, TOKENS, build_inputs, in_window_widths, mirrored_tokens
from atldiff.methods.lmdiff.network import LMDiffModel, TalkRenderer
from atldiff.methods.models import painter_of
from atldiff.training.painted import paint_batch
from atldiff.video.window import RIGID_POINTS, TEMPLATE

torch.set_num_threads(1)

FRAMES = 4


def points(opening: float = 0.0) -> np.ndarray:
    """Return the mean face's landmarks (478, 2) in window pixels, its lower lip and jaw dropped."""
    shape = mean_shape()[:, :2]
    template = TEMPLATE - TEMPLATE.mean(0)
    rigid = shape[list(RIGID_POINTS)]
    scale = np.linalg.norm(template) / np.linalg.norm(rigid - rigid.mean(0))
    face = (shape - rigid.mean(0)) * scale + TEMPLATE.mean(0)
    middle = face[LIP_GAP_PAIRS[:, 0], 1].mean()
    lower = (face[:, 1] > middle)[:, None] * np.array([0.0, 1.0])
    lower[LIPS_INNER[1:10]] = 0
    return (face + lower * opening) - np.array([24, 26])


def talking(opening: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a closed mouth (1, 478, 2), and one that opens over time (1, T, 478, 2)."""
    return points()[None], np.stack([points(3.0 * t * opening) for t in range(FRAMES)])[None]


def picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((10, 10, 3), np.float32) * 2 - 1
    return np.ascontiguousarray(cv2.resize(coarse, (80, 80)).transpose(2, 0, 1))[None]


@pytest.fixture(scope="module")
def renderer(random_lmdiff_model: LMDiffModel) -> TalkRenderer:
    return random_lmdiff_model.renderer


def varied(renderer: TalkRenderer, **fields: Any) -> TalkRenderer:
    """Return a fresh renderer of a configuration that differs in some fields, moved from its start."""
    torch.manual_seed(0)
    made = TalkRenderer(replace(renderer.config, **fields)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return made


def render(renderer: TalkRenderer, seed: int = 0, steps: int = 2, opening: float = 1.0):  # noqa: ANN201
    source, target = talking(opening)
    painter = painter_of(renderer)
    return painter.render_window(picture(), source, target, painter.window_noise(seed, 0, FRAMES), steps)


def painted(renderer: TalkRenderer, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return paint_batch(painter_of(renderer), given, given["noise"].numpy(), 1)[0]


def batch(renderer: TalkRenderer, items: int = 2) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    source, target = talking()
    inputs = build_inputs(picture(), source[:, NEEDED], target[:, :, NEEDED], renderer.config)
    given = {
        "target": torch.from_numpy(picture(7))[:, :, None].expand(-1, -1, FRAMES, -1, -1),
        **{name: torch.from_numpy(getattr(inputs, name)) for name in ("prior", "shown", "mask", "mouth")},
        "reference": torch.from_numpy(picture()),
        "source": torch.from_numpy(source[:, IP_LAP]).float(),
        "points": torch.from_numpy(target[:, :, IP_LAP]).float(),
    }
    return {
        **{name: x.repeat(items, *[1] * (x.ndim - 1)) for name, x in given.items()},
        "noise": torch.randn(items, 4, 1, 20, 20, generator=random),
        "level": torch.tensor([999, 400])[:items],
        "guessed": torch.tensor([False, True])[:items],
        "clips": torch.arange(items),
    }


def test_tokens_are_ip_laps_points_and_their_counterparts() -> None:
    assert np.array_equal(NEEDED[TOKENS], IP_LAP)
    twin = mirrored_tokens()
    pairs = dict(zip(NEEDED[TOKENS].tolist(), NEEDED[twin].tolist(), strict=True))
    assert pairs[61] == 291
    assert pairs[33] == 263
    assert pairs[17] == 17
    assert all(pairs[pairs[point]] == point for point in pairs)


def test_points_are_counted_in_sides_of_the_window() -> None:
    corners = torch.tensor([[-0.5, -0.5], [79.5, 79.5]])
    assert in_window_widths(corners, TalkRendererConfig()).tolist() == [[0, 0], [1, 1]]


def test_the_hidden_target_does_not_tell_how_its_lips_are() -> None:
    source, target = talking()
    config = TalkRendererConfig()
    arguments = picture(), source[:, NEEDED], target[:, :, NEEDED], config
    seen = picture(1)[:, :, None].repeat(FRAMES, 2)
    shown = build_inputs(*arguments, seen).shown
    lips = np.round(target[0][:, LIPS]).astype(int)
    for frame in range(FRAMES):
        x, y = lips[frame].T
        assert (shown[0, :, frame, y, x] == 0).all()
    assert np.array_equal(build_inputs(*arguments, seen, np.array([True])).shown, shown)
    unfilmed = build_inputs(*arguments, seen, np.array([False])).shown
    assert np.array_equal(unfilmed, build_inputs(*arguments).shown)
    assert not np.array_equal(unfilmed, shown)


def test_only_the_mask_changes(renderer: TalkRenderer) -> None:
    source, target = talking()
    mask = build_inputs(picture(), source[:, NEEDED], target[:, :, NEEDED], renderer.config).mask
    frames, base = render(renderer)
    assert frames.shape == base.shape == (1, 3, FRAMES, 80, 80)
    outside = np.broadcast_to(mask == 0, frames.shape)
    assert outside.any()
    assert np.array_equal(frames[outside], base[outside])
    assert not np.allclose(frames, base)


def test_seed_steps_and_landmarks_count(renderer: TalkRenderer) -> None:
    frames, _ = render(renderer)
    assert np.array_equal(render(renderer)[0], frames)
    for other in (render(renderer, seed=1), render(renderer, steps=3), render(renderer, opening=0.5)):
        assert not np.allclose(other[0], frames, atol=1e-4)


def test_points_alone_change_the_frames_where_motion_is_on(renderer: TalkRenderer) -> None:
    """The pictures being the same, what the landmarks say reaches the frames by TalkFormer."""
    given = batch(renderer, 1)
    elsewhere = given | {"points": given["points"] + 3.0}
    for motion in (True, False):
        made = varied(renderer, motion=motion)
        here, there = (painted(made, each) for each in (given, elsewhere))
        assert torch.equal(here, there) != motion


def test_the_portrait_reaches_the_frames_by_the_warp(renderer: TalkRenderer) -> None:
    given = batch(renderer, 1)
    other = given | {"reference": torch.from_numpy(picture(9))}
    for warp in (True, False):
        made = varied(renderer, warp=warp)
        here, there = (painted(made, each) for each in (given, other))
        assert torch.equal(here, there) != warp


@pytest.mark.parametrize(
    "fields", [{"motion": False}, {"warp": False}, {"talk_levels": (1,)}, {"reference": "still"}, {}]
)
def test_every_form_renders_and_learns(renderer: TalkRenderer, fields: dict) -> None:
    made = varied(renderer, **fields)
    frames, base = render(made)
    assert np.isfinite(frames).all()
    assert not np.allclose(frames, base)
    losses = made.loss(batch(made))
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in made.denoiser.parameters())


@pytest.mark.parametrize("reference", ["still", "both"])
def test_a_fresh_network_starts_at_the_warped_portrait_where_it_sees_it(renderer: TalkRenderer, reference: str) -> None:
    torch.manual_seed(0)
    fresh = TalkRenderer(replace(renderer.config, reference=reference)).eval()  # pyright: ignore
    frames, base = render(fresh, steps=1)
    assert np.allclose(frames, base.clip(-1, 1), atol=1e-4) == (reference == "both")


def test_parts_of_a_batch_average_to_its_loss(renderer: TalkRenderer) -> None:
    whole = batch(renderer)
    losses = renderer.loss(whole)
    parts = [renderer.loss({name: x[i : i + 1] for name, x in whole.items()})["loss"] for i in range(2)]
    assert torch.allclose(torch.stack(parts).mean(), losses["loss"], rtol=1e-4)


def test_the_loss_reaches_the_landmarks(renderer: TalkRenderer) -> None:
    given = batch(renderer)
    for motion in (True, False):
        made = varied(renderer, motion=motion)
        wanted, source = given["points"].clone().requires_grad_(), given["source"].clone().requires_grad_()
        made.loss(given | {"points": wanted, "source": source})["loss"].backward()
        if motion:
            assert wanted.grad is not None
            assert (wanted.grad != 0).all()
        else:
            assert wanted.grad is None or not wanted.grad.any()


def test_the_denoisers_gradient_on_a_coordinate_is_that_of_finite_differences(renderer: TalkRenderer) -> None:
    denoiser = varied(renderer).double().denoiser
    random = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(shape, generator=random).double()  # noqa: E731
    x, prior, shown, reference = draw(1, 4, 2, 8, 8), draw(1, 4, 2, 8, 8), draw(1, 3, 2, 32, 32), draw(1, 4, 8, 8)
    mask, wanted = torch.ones(1, 1, 2, 8, 8).double(), draw(1, 4, 2, 8, 8)
    source, target = (torch.rand(1, *more, len(TOKENS), 2, generator=random).double() for more in ((), (2,)))
    target.requires_grad_()

    def loss(where: torch.Tensor) -> torch.Tensor:
        told = denoiser.listen(shown, mask, reference, source, where)
        return (denoiser(x, torch.tensor([500]), told, prior) - wanted).square().mean()

    (gradient,) = torch.autograd.grad(loss(target), target)
    with torch.no_grad():
        for at in ((0, 0, 95, 0), (0, 1, 120, 1)):
            step = torch.zeros_like(target)
            step[at] = 1e-5
            measured = (loss(target + step) - loss(target - step)) / 2e-5
            assert float(measured) == pytest.approx(float(gradient[at]), rel=1e-3)


@pytest.mark.parametrize("name", list(LMDIFF_PRESETS))
def test_configuration_survives_json(name: str) -> None:
    config = LMDIFF_PRESETS[name]
    assert from_dict(to_dict(config)) == config


def test_the_presets_are_within_their_size() -> None:
    config = LMDIFF_PRESETS["compact"]
    assert LMDIFF_PRESETS["window"] == LMDiffConfig()
    model = LMDiffModel(config)
    assert sum(p.numel() for p in model.renderer.denoiser.parameters()) < 9e6
    paper = LMDIFF_PRESETS["paper"].generator
    assert (paper.points, paper.width, paper.layers, paper.feed_forward) == ("ip-lap", 512, 4, 1024)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"talk_levels": ()}, "talk_levels: got \\(\\), expected numbers of 0 to 2 that rise"),
        ({"talk_levels": (0, 3)}, "talk_levels: got \\(0, 3\\), expected numbers of 0 to 2"),
        ({"talk_levels": (1, 0)}, "talk_levels: got \\(1, 0\\), expected numbers of 0 to 2"),
        ({"reference": "warped"}, "reference: got 'warped', expected 'still' or 'both'"),
        ({"token_width": 8}, "token_width: got 8, expected 16 to 1024"),
        ({"resolution": 84}, "resolution: got 84, expected a multiple of 16"),
    ],
)
def test_a_wrong_configuration_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TalkRendererConfig(**fields)
