"""TalkFormer: a warp that finds, motion that points tell, and a gradient on where they are."""

from __future__ import annotations

import pytest
import torch

from atldiff.diffusion.talkformer import CODE, LandmarkTokens, ReferenceEncoder, TalkFormer, grid_codes, place_codes

torch.set_num_threads(1)

WIDTH, TOKENS, POINTS, SIDE, FRAMES = 32, 16, 5, 6, 3


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Move a fresh module from where it changes nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return module


def made(**parts: bool) -> TalkFormer:
    torch.manual_seed(0)
    return moved(TalkFormer(WIDTH, TOKENS, **parts))  # pyright: ignore[reportReturnType]


def given(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features, target tokens, source tokens and the portrait's features of two windows."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=random)  # noqa: E731
    return (
        draw(2 * FRAMES, WIDTH, SIDE, SIDE), draw(2, FRAMES, POINTS, TOKENS), draw(2, POINTS, TOKENS),
        draw(2, WIDTH, SIDE, SIDE),
    )  # fmt: skip


def test_a_fresh_one_changes_nothing_and_learns_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    fresh = TalkFormer(WIDTH, TOKENS)
    features, *rest = given()
    out = fresh(features, fresh.prepare(SIDE, *rest))
    assert torch.equal(out, features)
    (out - given(2)[0]).square().mean().backward()
    for end in (fresh.align_out, fresh.warp_out, fresh.feed_out):
        assert end.weight.grad is not None
        assert end.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("parts", [{}, {"motion": False}, {"warp": False}, {"motion": False, "warp": False}])
def test_a_part_that_is_off_is_not_there(parts: dict[str, bool]) -> None:
    talkformer = made(**parts)
    features, target, source, reference = given()
    motion, warp = parts.get("motion", True), parts.get("warp", True)
    shown = {
        "target": target if motion else None, "source": source if motion else None,
        "reference": reference if warp else None,
    }  # fmt: skip
    out = talkformer(features, talkformer.prepare(SIDE, **shown))
    assert out.shape == features.shape
    assert not torch.allclose(out, features)
    names = {name.split(".")[0].split("_")[0] for name, _ in talkformer.named_parameters()}
    assert ("align" in names) == motion
    assert ("warp" in names) == warp
    for name, other in zip(("target", "source", "reference"), given(2)[1:], strict=True):
        if shown[name] is not None:
            changed = talkformer(features, talkformer.prepare(SIDE, **shown | {name: other}))
            # The portrait's landmarks say where its features are: nothing without a warp.
            assert torch.equal(changed, out) == (name == "source" and not warp)


def test_frames_and_windows_do_not_mix() -> None:
    talkformer = made()
    features, target, source, reference = given()
    whole = talkformer(features, talkformer.prepare(SIDE, target, source, reference))
    for window in range(2):
        for frame in range(FRAMES):
            at = window * FRAMES + frame
            told = talkformer.prepare(
                SIDE, target[window, frame][None, None], source[window][None], reference[window][None]
            )
            assert torch.allclose(talkformer(features[at][None], told), whole[at][None], atol=1e-5)


@pytest.mark.parametrize("shift", [0, 2])
def test_the_warp_finds_what_has_the_same_motion(shift: int) -> None:
    """Where landmarks and features agree it is the identity; where the features are shifted, their shift.

    With queries and keys of one projection, made decisive, and values as they are.
    """
    torch.manual_seed(0)
    talkformer = TalkFormer(WIDTH, TOKENS)
    assert torch.equal(talkformer.warp_query.weight, talkformer.warp_key.weight)  # as it starts
    _, target, _, reference = given()
    with torch.no_grad():
        for side in (talkformer.warp_query, talkformer.warp_key):
            torch.nn.init.orthogonal_(side.weight, gain=6.0)
            side.bias.zero_()
        talkformer.warp_key.load_state_dict(talkformer.warp_query.state_dict())
        for end in (talkformer.warp_value, talkformer.warp_out):
            end.weight.copy_(torch.eye(WIDTH)[:, :, None, None])
            end.bias.zero_()
        told = talkformer.prepare(SIDE, target[:, :1], target[:, 0], reference)
        features = reference.roll(shift, dims=-1)
        assert told.portrait is not None
        fetched = talkformer.fetch(features, told.portrait) - features
    assert torch.allclose(fetched, features, atol=0.02)


def test_the_warp_goes_by_the_landmarks() -> None:
    """The same picture is fetched from elsewhere when the portrait's landmarks are said to lie elsewhere."""
    talkformer, tokens = made(), moved(LandmarkTokens(POINTS, TOKENS))
    points = torch.rand(1, POINTS, 2, generator=torch.Generator().manual_seed(4))
    features = given()[3][:1]
    here, there = (
        talkformer(features, talkformer.prepare(SIDE, tokens(points[:, None]), tokens(still), features))
        for still in (points, points + torch.tensor([0.3, 0.0]))
    )
    assert (here - there).abs().max() > 1e-3


def test_codes_of_places_and_landmarks_agree() -> None:
    grid = grid_codes(4, torch.device("cpu"))
    assert grid.shape == (1, CODE, 4, 4)
    assert torch.allclose(grid[0, :, 1, 2], place_codes(torch.tensor([2.5 / 4, 1.5 / 4])))
    near, far = (place_codes(torch.tensor([[0.4, 0.5], [x, 0.5]])) for x in (0.405, 0.6))
    assert (near[0] - near[1]).norm() < (far[0] - far[1]).norm()
    assert (near[0] - near[1]).norm() > 0.1  # half a pixel of eighty is told apart


def test_which_point_it_is_counts() -> None:
    tokens = LandmarkTokens(POINTS, TOKENS)
    said = tokens(torch.full((2, FRAMES, POINTS, 2), 0.5))
    assert said.shape == (2, FRAMES, POINTS, TOKENS)
    assert not torch.allclose(said[0, 0, 0], said[0, 0, 1])


def test_the_gradient_on_a_coordinate_is_that_of_finite_differences() -> None:
    talkformer, tokens = made().double(), moved(LandmarkTokens(POINTS, TOKENS)).double()
    features, _, source, reference = (x.double() for x in given())
    points = torch.rand(2, FRAMES, POINTS, 2, generator=torch.Generator().manual_seed(4)).double().requires_grad_()

    def loss(where: torch.Tensor) -> torch.Tensor:
        return talkformer(features, talkformer.prepare(SIDE, tokens(where), source, reference)).square().sum()

    (gradient,) = torch.autograd.grad(loss(points), points)
    assert (gradient != 0).all()
    with torch.no_grad():
        for at in ((0, 0, 0, 0), (1, 2, 3, 1)):
            step = torch.zeros_like(points)
            step[at] = 1e-6
            measured = (loss(points + step) - loss(points - step)) / 2e-6
            assert float(measured) == pytest.approx(float(gradient[at]), rel=1e-4)


def test_the_encoder_has_features_at_every_level() -> None:
    made = ReferenceEncoder(4, (16, 32, 48))(torch.randn(2, 4, 8, 8))
    assert [tuple(each.shape) for each in made] == [(2, 16, 8, 8), (2, 32, 4, 4), (2, 48, 2, 2)]
