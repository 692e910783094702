"""ATL-Diff as published: guided noise, the network's contract, sampling, the loss, frames of a portrait."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from atldiff.config import (
    PAPER_PRESETS,
    ConditionUNetConfig,
    IdentityDiffusionConfig,
    PublishedConfig,
    SampleConfig,
    ScheduleConfig,
)
from atldiff.diffusion import ddim
from atldiff.diffusion.noise import guide_mask
from atldiff.emotions import EMOTIONS
from atldiff.landmarks.geometry import from_canonical, rotation_from_euler
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.methods.atl.network import ATLModel, Renderer
from atldiff.methods.atl_published.inputs import NEEDED, build_start, guided_image
from atldiff.methods.atl_published.network import (
    FROM_START,
    IdentityUNet,
    PublishedModel,
    PublishedRenderer,
    training_level,
)
from atldiff.methods.atl_published.painter import PublishedPainter
from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
from atldiff.methods.lmdiff.network import LMDiffModel, TalkRenderer
from atldiff.methods.models import build, painter_of
from atldiff.types import Portrait
from atldiff.video.window import outline

torch.set_num_threads(1)

SIDE, FRAMES = 32, 8
SMALL = IdentityDiffusionConfig(side=SIDE, widths=(16, 32), blocks=(1, 1), identity_tokens=16, identity_width=8)
DIFFUSERS = ConditionUNetConfig(
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    block_out_channels=(16, 32),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=8,
    cross_attention_dim=8,
)
UNLABELLED = len(EMOTIONS)
PREDICTIONS = pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])


def of_prediction(prediction: Any, config: IdentityDiffusionConfig = SMALL, **schedule: Any) -> IdentityDiffusionConfig:
    return replace(config, schedule=ScheduleConfig(prediction=prediction, **schedule))


def make(config: IdentityDiffusionConfig = SMALL, *, moved: bool = True) -> PublishedRenderer:
    """A renderer; `moved` from its fresh start, where much of it is zero, so that every part has an effect."""
    torch.manual_seed(0)
    renderer = PublishedRenderer(config).eval()
    if moved:
        with torch.no_grad():
            for parameter in renderer.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.05)
    return renderer


def clips(count: int = 2, frames: int = FRAMES) -> dict[str, torch.Tensor]:
    """A training batch of random clips around smooth pictures."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    identity = torch.nn.functional.avg_pool2d(draw(count, 3, SIDE, SIDE), 5, 1, 2, count_include_pad=False)
    prior = identity[:, :, None].repeat(1, 1, frames, 1, 1)
    return {
        "identity": identity,
        "prior": prior,
        "target": (prior + 0.2 * draw(count, 3, frames, 1, 1) - 0.1).clamp(0, 1),
        "mask": draw(count, 1, frames, SIDE, SIDE),
        "mouth": (draw(count, 1, frames, SIDE, SIDE) > 0.9).float(),
        "noise": torch.randn(count, 3, frames, SIDE, SIDE, generator=generator),
        "level": torch.tensor([999, 300, 20, 700])[:count],
        "emotion": torch.tensor([0, UNLABELLED, 4, 7])[:count],
    }


def start_of(renderer: PublishedRenderer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return guided_image(batch["prior"], batch["mask"], batch["noise"], renderer.config)


def left_at(config: IdentityDiffusionConfig, level: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ddim.alphas(config.schedule))[level]


def rendered(
    renderer: PublishedRenderer, batch: dict[str, torch.Tensor], steps: int = 2, **changes: Any
) -> torch.Tensor:
    told = {name: batch[name] for name in ("prior", "mask", "identity", "emotion", "noise")} | changes
    painter, told = painter_of(renderer), {name: value.numpy() for name, value in told.items()}
    frames = painter.render(tokens=painter.describe(told.pop("identity")), **told, steps=steps)
    assert frames.dtype == np.float32
    return torch.from_numpy(frames)


class TestGuidedImage:
    def test_is_the_published_formula(self) -> None:
        """n = identity + (mask + 0.1) * noise (papers.md 1.5)."""
        batch = clips()
        image = start_of(make(), batch)
        at = (1, 2, 3, 5, 7)
        mask = float(batch["mask"][1, 0, 3, 5, 7])
        assert float(image[at]) == pytest.approx(float(batch["prior"][at]) + (mask + 0.1) * float(batch["noise"][at]))
        assert torch.allclose(image, batch["prior"] + (batch["mask"] + 0.1) * batch["noise"])

    def test_the_floor_is_configured(self) -> None:
        batch = clips()
        image = start_of(make(replace(SMALL, noise_floor=0.0)), {**batch, "mask": torch.zeros_like(batch["mask"])})
        assert torch.equal(image, batch["prior"])

    def test_uniform_noise_has_the_same_root_mean_square(self) -> None:
        batch = clips()
        ones = torch.ones_like(batch["noise"])
        zero = torch.zeros_like(ones)
        guided, uniform = (
            guided_image(zero, batch["mask"], ones, replace(SMALL, noise=noise)) for noise in ("guided", "uniform")
        )  # with a prior of zero and noise of one, the scale itself
        for clip in range(2):
            assert uniform[clip].std() < 1e-6
            assert float(uniform[clip].square().mean()) == pytest.approx(float(guided[clip].square().mean()), rel=1e-5)
        assert uniform[0, 0, 0, 0, 0] != uniform[1, 0, 0, 0, 0]  # of each clip by itself

    def test_one_noise_for_all_frames(self) -> None:
        batch = clips()
        shared = batch["noise"][:, :, :1]
        image = guided_image(batch["prior"], batch["mask"], shared, SMALL)
        assert image.shape == batch["prior"].shape
        noise = (image - batch["prior"]) / (batch["mask"] + 0.1)
        assert torch.allclose(noise, shared.expand_as(noise), atol=1e-4)


class TestNetwork:
    @PREDICTIONS
    def test_shapes(self, prediction: str) -> None:
        network = make(of_prediction(prediction)).unet
        assert isinstance(network, IdentityUNet)
        for count, frames in ((1, 1), (2, 4), (1, 32)):
            with torch.inference_mode():
                said = network(
                    torch.rand(count, 3, frames, SIDE, SIDE), torch.zeros(count, dtype=torch.int64),
                    torch.randn(count, 16, 8), torch.full((count,), UNLABELLED),
                )  # fmt: skip
            assert said.shape == (count, 3, frames, SIDE, SIDE)
            assert said.dtype == torch.float32
            assert said.isfinite().all()

    def test_at_the_noisiest_level_a_fresh_network_gives_the_identity(self) -> None:
        """Eight independent frames: their mean has 0.35 of the noise, and the half-closed gate adds a little."""
        renderer, batch = make(moved=False), clips()
        start = start_of(renderer, batch)
        level = torch.full((2,), 999)
        alpha = left_at(SMALL, level)
        with torch.inference_mode():
            said = renderer.predict(
                ddim.at_level(batch["target"], start, alpha), level, renderer.describe(batch["identity"]),
                batch["emotion"],
            )  # fmt: skip
        noise = float((start - batch["prior"]).square().mean().sqrt())
        left = float((said - batch["prior"]).square().mean().sqrt())
        assert left < 0.42 * noise
        assert abs(float((said - batch["prior"]).mean())) < 0.02  # and is as bright

    def test_at_the_cleanest_level_a_fresh_network_gives_the_mean_frame(self) -> None:
        """Which is the frame wherever a clip stands still; of motion it keeps what its gate lets through."""
        renderer, batch = make(moved=False), clips()
        level = torch.zeros(2, dtype=torch.int64)
        alpha = left_at(SMALL, level)
        said = {}
        for name, frames in (("still", batch["prior"]), ("moving", batch["target"])):
            x = ddim.at_level(frames, start_of(renderer, batch), alpha)
            with torch.inference_mode():
                said[name] = renderer.predict(x, level, renderer.describe(batch["identity"]), batch["emotion"])
        assert (said["still"] - batch["prior"]).abs().mean() < 0.01
        motion = batch["target"] - batch["target"].mean(dim=2, keepdim=True)
        kept = said["moving"] - said["moving"].mean(dim=2, keepdim=True)
        assert 0.05 < float((kept * motion).sum() / motion.square().sum()) < 0.2

    @PREDICTIONS
    @pytest.mark.parametrize("level", [0, 400, 999])
    def test_a_fresh_network_says_a_still_noiseless_clip_at_every_level(self, prediction: str, level: int) -> None:
        """Where frames and guided image are one picture, every prediction type is known without training."""
        config = of_prediction(prediction)
        renderer, batch = make(config, moved=False), clips()
        levels = torch.full((2,), level)
        alpha = left_at(config, levels)
        x = ddim.at_level(batch["prior"], batch["prior"], alpha)
        with torch.inference_mode():
            said = renderer.predict(x, levels, renderer.describe(batch["identity"]), batch["emotion"])
        wanted = ddim.target(batch["prior"], batch["prior"], alpha, prediction)
        assert torch.allclose(said, wanted, atol=1e-4)

    @pytest.mark.parametrize("changed", ["x", "level", "tokens", "emotion"])
    def test_everything_it_is_told_has_an_effect(self, changed: str) -> None:
        renderer, batch = make(), clips()
        told = {
            "x": start_of(renderer, batch),
            "level": torch.tensor([500, 500]),
            "tokens": renderer.describe(batch["identity"]).detach(),
            "emotion": torch.tensor([3, 3]),
        }
        other = {
            "x": told["x"] + 0.1, "level": told["level"] + 50, "tokens": told["tokens"].flip(0),
            "emotion": torch.full((2,), UNLABELLED),
        }  # fmt: skip
        with torch.inference_mode():
            before, after = renderer.predict(**told), renderer.predict(**{**told, changed: other[changed]})
        assert (after - before).abs().amax() > 1e-4

    def test_clips_of_a_batch_are_apart(self) -> None:
        renderer, batch = make(), clips(3)
        start = start_of(renderer, batch)
        tokens = renderer.describe(batch["identity"]).detach()
        with torch.inference_mode():
            both = renderer.predict(start, batch["level"], tokens, batch["emotion"])
            for clip in range(3):
                part = slice(clip, clip + 1)
                alone = renderer.predict(start[part], batch["level"][part], tokens[part], batch["emotion"][part])
                assert torch.allclose(alone[0], both[clip], atol=1e-5)
            poisoned = start.clone()
            poisoned[1] = float("nan")
            after = renderer.predict(poisoned, batch["level"], tokens, batch["emotion"])
        assert after[1].isnan().all()
        assert after[[0, 2]].isfinite().all()

    def test_in_bfloat16_it_is_close(self) -> None:
        renderer, batch = make(), clips()
        exact = rendered(renderer, batch)
        rounded = rendered(renderer.to(torch.bfloat16), batch)
        assert rounded.dtype == torch.float32
        assert (rounded - exact).abs().mean() < 0.01


class TestRender:
    @PREDICTIONS
    @pytest.mark.parametrize("steps", [1, 2, 8])
    def test_is_deterministic_and_in_range(self, prediction: str, steps: int) -> None:
        renderer, batch = make(of_prediction(prediction)), clips()
        first, again = rendered(renderer, batch, steps), rendered(renderer, batch, steps)
        assert torch.equal(first, again)
        assert first.shape == batch["prior"].shape
        assert first.isfinite().all()
        assert first.min() >= 0
        assert first.max() <= 1

    @pytest.mark.parametrize("name", ["prior", "mask", "identity", "emotion", "noise"])
    def test_everything_it_starts_from_has_an_effect(self, name: str) -> None:
        renderer, batch = make(), clips()
        changed: dict[str, Any] = {name: batch[name].flip(0)}
        before, after = rendered(renderer, batch), rendered(renderer, batch, **changed)
        assert (before - after).abs().amax() > 1e-4

    def test_more_steps_are_other_frames(self) -> None:
        renderer, batch = make(), clips()
        assert (rendered(renderer, batch, 1) - rendered(renderer, batch, 4)).abs().amax() > 1e-4

    def test_clips_of_a_batch_are_apart(self) -> None:
        renderer, batch = make(replace(SMALL, noise="uniform")), clips(3)
        together = rendered(renderer, batch)
        for clip in range(3):
            alone = rendered(renderer, {name: tensor[clip : clip + 1] for name, tensor in batch.items()})
            assert torch.allclose(alone[0], together[clip], atol=1e-5)

    @PREDICTIONS
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_a_network_that_knows_finds_the_frames(self, prediction: str, steps: int) -> None:
        """From the guided image alone, which the process only ever comes near."""
        config = of_prediction(prediction)
        batch = {name: value.numpy() for name, value in clips().items()}
        left, frames = ddim.alphas(config.schedule), batch["target"]

        def knows(x: np.ndarray, level: np.ndarray, tokens: np.ndarray, emotion: np.ndarray) -> list[np.ndarray]:
            kept, lost = (value[:, None, None, None, None] for value in (left[level] ** 0.5, (1 - left[level]) ** 0.5))
            return [ddim.target(frames, (x - kept * frames) / lost, left[level], prediction)]

        painter = PublishedPainter(config, {"describe": lambda identity: [identity], "denoiser": knows})
        told = [batch[name] for name in ("prior", "mask", "identity", "emotion", "noise")]
        assert np.allclose(painter.render(*told, steps), frames, atol=2e-2)

    def test_more_steps_than_levels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="steps: got 9, expected 1 to 8"):
            rendered(make(of_prediction("sample", train_steps=8)), clips(), 9)


class TestDiffusersNetwork:
    CONFIG = replace(SMALL, network="unet3d-condition", unet=DIFFUSERS)

    @PREDICTIONS
    def test_renders(self, prediction: str) -> None:
        pytest.importorskip("diffusers")
        renderer, batch = make(of_prediction(prediction, self.CONFIG)), clips(1, 4)
        frames = rendered(renderer, batch, 1)
        assert frames.shape == (1, 3, 4, SIDE, SIDE)
        assert torch.equal(frames, rendered(renderer, batch, 1))
        assert frames.isfinite().all()

    def test_learns_with_height_as_time(self) -> None:
        pytest.importorskip("diffusers")
        renderer = make(replace(self.CONFIG, axes="bchwt")).train()
        renderer.loss(clips(1, 4))["loss"].backward()
        # Its class labels change nothing, as released; all its weights are used.
        assert all(p.grad is not None and p.grad.isfinite().all() for p in renderer.unet.parameters())


class TestLoss:
    @PREDICTIONS
    @pytest.mark.parametrize("noise", ["guided", "uniform"])
    def test_of_a_batch_is_the_mean_of_its_clips(self, prediction: str, noise: Any) -> None:
        renderer, batch = make(replace(of_prediction(prediction), noise=noise)), clips(4)
        with torch.inference_mode():
            whole = renderer.loss(batch)
            alone = [renderer.loss({k: v[clip : clip + 1] for k, v in batch.items()}) for clip in range(4)]
        assert len({round(float(one["loss"]), 4) for one in alone}) == 4
        for name in whole:
            assert float(whole[name]) == pytest.approx(np.mean([float(one[name]) for one in alone]), rel=1e-4), name

    @PREDICTIONS
    def test_is_zero_for_the_target(self, prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
        config = of_prediction(prediction)
        renderer, batch = make(config), clips()
        alpha = left_at(config, batch["level"])
        answer = ddim.target(batch["target"], start_of(renderer, batch), alpha, prediction)
        seen = []

        def knows(x: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
            seen.append((x, level, emotion))
            return answer

        monkeypatch.setattr(renderer, "predict", knows)
        assert {name: float(value) for name, value in renderer.loss(batch).items()} == pytest.approx(
            {"loss": 0, "square": 0, "edges": 0}
        )
        ((x, level, emotion),) = seen
        assert torch.allclose(x, ddim.at_level(batch["target"], start_of(renderer, batch), alpha))
        assert torch.equal(level, batch["level"])
        assert torch.equal(emotion, batch["emotion"])

    def test_landmarks_and_the_mouth_count_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        renderer, batch = make(), clips()
        batch["mask"], batch["mouth"] = (torch.zeros_like(batch["mask"]) for _ in range(2))
        batch["mask"][..., :16, :16], batch["mouth"][..., 16:, 16:] = 1, 1
        costs = {}
        for name, place in (("mask", (0, 0)), ("mouth", (16, 16)), ("rest", (0, 16))):
            wrong = batch["target"].clone()
            wrong[..., place[0] : place[0] + 16, place[1] : place[1] + 16] += 0.1
            monkeypatch.setattr(renderer, "predict", lambda *_, wrong=wrong: wrong)
            costs[name] = float(renderer.loss(batch)["square"])
        assert costs["mask"] == pytest.approx(5 * costs["rest"], rel=1e-4)
        assert costs["mouth"] == pytest.approx(5 * costs["rest"], rel=1e-4)

    @PREDICTIONS
    def test_gradients_reach_every_parameter(self, prediction: str) -> None:
        renderer = make(of_prediction(prediction)).train()
        renderer.loss(clips())["loss"].backward()
        for name, parameter in renderer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_it_falls_on_a_fixed_batch(self) -> None:
        renderer, batch = make(moved=False).train(), clips()
        optimiser = torch.optim.AdamW(renderer.parameters(), 2e-3)
        losses = []
        for _ in range(25):
            optimiser.zero_grad()
            loss = renderer.loss(batch)["loss"]
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    def test_levels_are_in_range_and_mostly_noisy(self) -> None:
        random = np.random.default_rng(0)
        for count in (2, 10, 1000):
            levels = np.array([training_level(random, count) for _ in range(4000)])
            assert levels.min() >= 0
            assert levels.max() == count - 1
            assert (levels == count - 1).mean() > FROM_START - 0.03
            assert np.median(levels) >= count // 2
        assert len(np.unique(levels)) > 500


class TestResNetIdentity:
    def test_stays_frozen_and_in_evaluation_mode(self) -> None:
        config = replace(SMALL, identity="resnet50", identity_tokens=64, identity_width=32)
        renderer, batch = make(config).train(), clips()
        assert renderer.training
        assert renderer.unet.training
        assert not any(module.training for module in renderer.identity.modules())
        assert not any(parameter.requires_grad for parameter in renderer.identity.parameters())
        before = {name: tensor.clone() for name, tensor in renderer.identity.state_dict().items()}
        tokens = renderer.describe(batch["identity"])
        assert tokens.shape == (2, 64, 32)
        renderer.loss(batch)["loss"].backward()
        assert all(parameter.grad is None for parameter in renderer.identity.parameters())
        assert all(torch.equal(before[name], tensor) for name, tensor in renderer.identity.state_dict().items())
        assert any(parameter.grad is not None for parameter in renderer.unet.parameters())
        assert copy.deepcopy(renderer).train().identity.training is False


# --- what the renderer starts from ----------------------------------------------------------------------------------


def points_of(count: int, side: int = SIDE) -> np.ndarray:
    """Window pixels (count, len(NEEDED), 2) of a face whose mouth opens."""
    shapes = np.repeat(mean_shape()[None], count, 0)
    shapes[:, 14, 1] += np.linspace(0, 0.3, count)
    return (shapes[:, NEEDED, :2] * 0.2 * side + np.array([0.5, 0.45]) * side).astype(np.float32)


class TestStart:
    def test_the_identity_is_repeated_and_the_mask_is_that_of_68_points(self) -> None:
        identity = clips()["identity"].numpy()
        target = np.stack([points_of(5), points_of(5)[::-1]])
        prior, mask = build_start(identity, points_of(2), target, SMALL)
        assert np.array_equal(prior, identity[:, :, None].repeat(5, 2))
        assert prior.flags.c_contiguous
        sixty_eight = target[:, :, np.searchsorted(NEEDED, SIXTY_EIGHT)]
        assert np.array_equal(mask, guide_mask(sixty_eight, SIDE, SMALL.blur_kernel))
        assert mask.shape == (2, 1, 5, SIDE, SIDE)
        assert mask.min() == 0
        assert mask.max() == 1

    def test_needed_points_are_all_that_matters(self) -> None:
        assert set(SIXTY_EIGHT) <= set(NEEDED.tolist())
        assert (np.diff(NEEDED) > 0).all()

    @pytest.mark.parametrize("scale", ["frame", "clip"])
    def test_by_frame_masks_do_not_depend_on_other_frames(self, scale: Any) -> None:
        config = replace(SMALL, mask_scale=scale)
        identity, target = clips(1)["identity"].numpy(), points_of(6)[None]
        crowded = target.copy()
        number = np.arange(len(SIXTY_EIGHT))
        dots = np.stack([10 + number % 9, 10 + number // 9], axis=-1)  # side by side
        crowded[:, 5, np.searchsorted(NEEDED, SIXTY_EIGHT)] = dots
        first, second = (build_start(identity, target[:, 0], t, config)[1][:, :, :5] for t in (target, crowded))
        assert np.array_equal(first, second) is (scale == "frame")

    def test_clips_of_a_batch_are_apart(self) -> None:
        identity, target = clips()["identity"].numpy(), np.stack([points_of(4), points_of(4) + 3])
        for change in ({}, {"mask_scale": "clip"}, {"prior": "warped"}):
            config = replace(SMALL, **change)
            both = build_start(identity, target[:, 0], target, config)
            for clip in range(2):
                part = slice(clip, clip + 1)
                alone = build_start(identity[part], target[part, 0], target[part], config)
                for one, whole in zip(alone, both, strict=True):
                    assert np.allclose(one, whole[part], atol=1e-5)

    def test_a_warped_prior_follows_the_landmarks(self) -> None:
        side = 64
        config = replace(SMALL, side=side, prior="warped")
        y = np.arange(side, dtype=np.float32)[:, None].repeat(side, 1) / side
        identity = np.stack([y, y.T, y * 0 + 0.5])[None]  # red grows downwards
        source = points_of(1, side)
        target = np.stack([source[0], source[0] + np.array([0, 4], np.float32)])[None]
        prior, mask = build_start(identity, source, target, config)
        assert prior.shape == (1, 3, 2, side, side)
        assert np.abs(prior[0, :, 0] - identity[0]).max() < 0.03  # nothing has moved
        at = (32, 28)  # inside the face: what was 4 px above is here now
        assert float(prior[0, 0, 1, at[1], at[0]]) == pytest.approx(float(y[at[1] - 4, at[0]]), abs=0.02)
        assert np.array_equal(mask, build_start(identity, source, target, replace(config, prior="identity"))[1])


# --- frames of a portrait -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    """A face of 50 px between the eyes in a picture of noise around it."""
    rotation = rotation_from_euler(np.array(5.0), np.array(-5.0), np.array(10.0))
    points = from_canonical(mean_shape(), rotation, np.array(50.0), np.array([200.0, 160.0, 0.0]))
    random = np.random.default_rng(0)
    return Portrait(random.integers(0, 256, (360, 400, 3), np.uint8), points.astype(np.float32))


def track(portrait: Portrait, frames: int) -> np.ndarray:
    points = np.repeat(portrait.landmarks[None], frames, 0)
    points[:, 14, 1] += 4 * np.sin(np.arange(frames) / 3).astype(np.float32)
    return points


def frames_of(
    renderer: PublishedRenderer, portrait: Portrait, points: np.ndarray, sizes: int = 100, seed: int = 0,
    emotion: str | None = None,
) -> np.ndarray:  # fmt: skip
    sampling = SampleConfig(steps=1, window_frames=8, shared_frames=2)
    stream = painter_of(renderer).open(portrait, sampling, seed, emotion)
    pushed = [frame for at in range(0, len(points), sizes) for frame in stream.push(points[at : at + sizes])]
    return np.stack([*pushed, *stream.flush()])


class TestFrames:
    def test_portions_do_not_matter(self, portrait: Portrait) -> None:
        for config in (SMALL, replace(SMALL, noise_over_time="shared")):
            renderer, points = make(config), track(portrait, 21)
            whole = frames_of(renderer, portrait, points)
            assert whole.shape == (21, 360, 400, 3)
            assert whole.dtype == np.uint8
            for sizes in (1, 3, 8):
                assert np.array_equal(frames_of(renderer, portrait, points, sizes), whole)

    def test_beyond_the_window_the_portrait_is_untouched(self, portrait: Portrait) -> None:
        renderer = make()
        before = portrait.image.copy()
        stream = painter_of(renderer).open(portrait, SampleConfig(window_frames=8, shared_frames=2), 0)
        low, high = outline(stream._matrix, SIDE)
        outside = np.ones(portrait.image.shape[:2], bool)
        (x0, y0), (x1, y1) = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
        outside[max(0, y0) : y1, max(0, x0) : x1] = False
        assert 0.2 < outside.mean() < 0.9
        frame = frames_of(renderer, portrait, track(portrait, 3))[1]
        assert np.array_equal(frame[outside], portrait.image[outside])
        assert (frame[~outside] != portrait.image[~outside]).mean() > 0.2
        assert np.array_equal(portrait.image, before)

    @pytest.mark.parametrize("over_time", ["independent", "shared"])
    def test_seed_emotion_and_landmarks_matter(self, portrait: Portrait, over_time: Any) -> None:
        renderer, points = make(replace(SMALL, noise_over_time=over_time)), track(portrait, 9)
        base = frames_of(renderer, portrait, points)
        assert np.array_equal(base, frames_of(renderer, portrait, points))
        assert not np.array_equal(base, frames_of(renderer, portrait, points, seed=1))
        happy, sad = (frames_of(renderer, portrait, points, emotion=name) for name in ("happy", "sad"))
        assert not np.array_equal(base, happy)
        assert not np.array_equal(happy, sad)
        moved = points + np.array([0, 8, 0], np.float32)
        assert not np.array_equal(base, frames_of(renderer, portrait, moved))

    def test_an_emotion_beyond_the_trained_ones_is_refused(self, portrait: Portrait) -> None:
        renderer, points = make(replace(SMALL, emotions=2)), track(portrait, 4)
        base = frames_of(renderer, portrait, points)
        assert not np.array_equal(base, frames_of(renderer, portrait, points, emotion="fear"))
        for emotion in ("neutral", "hapy"):
            with pytest.raises(ValueError, match=f"emotion: got '{emotion}', expected one of angry, fear$"):
                frames_of(renderer, portrait, points, emotion=emotion)

    def test_each_frame_has_its_own_noise_or_all_have_one(
        self, portrait: Portrait, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for over_time in ("independent", "shared"):
            renderer, seen = make(replace(SMALL, noise_over_time=over_time)), []

            def keep(prior: Any, mask: Any, identity: Any, emotion: Any, noise: Any, steps: int, seen=seen) -> Any:  # noqa: ANN001
                seen.append(np.broadcast_to(noise, prior.shape))
                return prior

            monkeypatch.setattr(PublishedPainter, "render", staticmethod(keep))
            frames_of(renderer, portrait, track(portrait, 20))
            first, second = seen[:2]
            assert np.array_equal(first[:, :, 6:], second[:, :, :2])  # the frames that both windows sample
            assert np.array_equal(first[:, :, 0], first[:, :, 1]) is (over_time == "shared")


class TestModel:
    def test_names_of_the_weights(self) -> None:
        model = PublishedModel(PublishedConfig(generator=PAPER_PRESETS["compact"].generator, renderer=SMALL))
        assert {name.split(".")[0] for name in model.state_dict()} == {"generator", "renderer"}

    def test_build_knows_every_method(self, random_any_model: Any, portrait: Portrait) -> None:
        again = build(random_any_model.config)
        assert type(again) is type(random_any_model)
        assert isinstance(again, ATLModel | PublishedModel | DiffTalkerModel | LMDiffModel)
        assert isinstance(again.renderer, Renderer | PublishedRenderer | LatentRenderer | TalkRenderer)
        assert again.state_dict().keys() == random_any_model.state_dict().keys()
        frames = painter_of(random_any_model.renderer).open(portrait, SampleConfig(steps=1), 0)
        assert len([*frames.push(track(portrait, 3)), *frames.flush()]) == 3
