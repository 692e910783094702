"""TalkFormer: a warp that finds, motion that points tell, and a gradient on where they are."""

from __future__ import annotations

import pytest
import torch

from atldiff.methods.lmdiff.talkformer import (
    CODE,
    Landmarks,
    LandmarkTokens,
    ReferenceEncoder,
    TalkFormer,
    grid_nearness,
    grid_places,
    place_codes,
)

torch.set_num_threads(1)

WIDTH, TOKENS, POINTS, FRAMES = 32, 16, 5, 3
SIZE = (4, 6)
"""Height and width of the features."""
PLACES = SIZE[0] * SIZE[1]


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


def given(seed: int = 1) -> tuple[torch.Tensor, Landmarks, Landmarks, torch.Tensor]:
    """Return features, target and source landmarks and the portrait's features of two windows."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=random)  # noqa: E731
    place = lambda *shape: torch.rand(*shape, 2, generator=random)  # noqa: E731
    target = Landmarks(draw(2, FRAMES, POINTS, TOKENS), place(2, FRAMES, POINTS))
    source = Landmarks(draw(2, POINTS, TOKENS), place(2, POINTS))
    return draw(2 * FRAMES, WIDTH, *SIZE), target, source, draw(2, WIDTH, *SIZE)


def part(landmarks: Landmarks, *at: int | slice) -> Landmarks:
    return Landmarks(landmarks.tokens[at], landmarks.points[at])


def test_a_fresh_one_changes_nothing_and_learns_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    fresh = TalkFormer(WIDTH, TOKENS)
    features, target, source, reference = given()
    out = fresh(features, fresh.prepare(SIZE, target, source, reference))
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

    def shown(target: Landmarks, source: Landmarks, reference: torch.Tensor) -> torch.Tensor:
        wanted, still = (target, source) if motion else (None, None)
        return talkformer(features, talkformer.prepare(SIZE, wanted, still, reference if warp else None))

    out = shown(target, source, reference)
    assert out.shape == features.shape
    assert not torch.allclose(out, features)
    names = {name.split(".")[0].split("_")[0] for name, _ in talkformer.named_parameters()}
    assert ("align" in names) == motion
    assert ("warp" in names) == warp
    _, other_target, other_source, other_reference = given(2)
    assert torch.equal(shown(other_target, source, reference), out) != motion
    # The portrait's landmarks say where its features are: nothing without a warp.
    assert torch.equal(shown(target, other_source, reference), out) != (motion and warp)
    assert torch.equal(shown(target, source, other_reference), out) != warp


def test_frames_and_windows_do_not_mix() -> None:
    talkformer = made()
    features, target, source, reference = given()
    whole = talkformer(features, talkformer.prepare(SIZE, target, source, reference))
    for window in range(2):
        for frame in range(FRAMES):
            at = window * FRAMES + frame
            told = talkformer.prepare(
                SIZE, part(target, slice(window, window + 1), slice(frame, frame + 1)),
                part(source, slice(window, window + 1)), reference[window][None],
            )  # fmt: skip
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
            torch.nn.init.zeros_(side.bias)  # pyright: ignore[reportArgumentType]
        talkformer.warp_key.load_state_dict(talkformer.warp_query.state_dict())
        for end in (talkformer.warp_value, talkformer.warp_out):
            end.weight.copy_(torch.eye(WIDTH)[:, :, None, None])
            torch.nn.init.zeros_(end.bias)  # pyright: ignore[reportArgumentType]
        talkformer.warp_reach.fill_(5.0)  # so far that nearness says nothing
        told = talkformer.prepare(SIZE, part(target, slice(None), slice(1)), part(target, slice(None), 0), reference)
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
        talkformer(features, talkformer.prepare(SIZE, tokens(points[:, None]), tokens(still), features))
        for still in (points, points + torch.tensor([0.3, 0.0]))
    )
    assert (here - there).abs().max() > 1e-3


def test_places_are_told_apart() -> None:
    grid = grid_places((3, 4), torch.zeros(()))
    assert grid.shape == (12, 2)
    assert grid[4 * 1 + 2].tolist() == [2.5 / 4, 1.5 / 4]  # both in widths: as far down as across is as far
    assert place_codes(grid).shape == (12, CODE)
    near, far = (place_codes(torch.tensor([[0.4, 0.5], [x, 0.5]])) for x in (0.405, 0.6))
    assert (near[0] - near[1]).norm() < (far[0] - far[1]).norm()
    assert (near[0] - near[1]).norm() > 0.1  # half a pixel of eighty is told apart


def test_nearness_is_a_normal_distributions() -> None:
    points = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(3))
    reach = torch.tensor([0.1, 0.4])
    nearness = grid_nearness(points, SIZE, reach.log())
    assert nearness.shape == (2, 2, PLACES, 5)
    apart = torch.cdist(grid_places(SIZE, points)[None].expand(2, -1, -1), points)
    for head in range(2):
        expected = torch.distributions.Normal(0, reach[head])
        assert torch.allclose(
            nearness[:, head], expected.log_prob(apart) - expected.log_prob(torch.zeros(())), atol=1e-4
        )


def test_a_place_attends_to_the_landmarks_near_it() -> None:
    """From the start, before anything is learned: moving a landmark changes the features around it, not those far."""
    talkformer, tokens = made(warp=False), LandmarkTokens(POINTS, TOKENS)
    points = torch.tensor([[0.1, 0.1], [0.15, 0.12], [0.12, 0.18], [0.1, 0.15], [0.9, 0.9]])
    features = given()[0][:1]
    aligned = []
    for where in (points, points - torch.tensor([[0, 0]] * 4 + [[0.05, 0]])):
        told = talkformer.prepare(SIZE, tokens(where[None, None]), None, None)
        assert told.place is not None
        assert told.motion is not None
        aligned.append(talkformer.align(features, told.place, told.motion))
    moved_by = (aligned[0] - aligned[1])[0].abs().amax(0)
    assert moved_by[-1, -1] > 1e-2
    assert moved_by[:2, :2].max() < 1e-4


@pytest.mark.parametrize("shift", [0, 1])
def test_a_place_of_the_portrait_is_found_where_the_landmarks_carried_it_from(shift: int) -> None:
    talkformer = made()
    source = torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(3))
    target = source[:, None] + torch.tensor([shift / SIZE[1], 0])
    nearest = talkformer._nearness_in_portrait(SIZE, target, source).argmax(-1)  # (1, heads, h * w)
    height, width = SIZE
    columns = nearest % width
    assert (nearest // width == torch.arange(height).repeat_interleave(width)).all()
    assert (columns == (torch.arange(width).repeat(height) - shift).clamp_min(0)).all()


def test_which_point_it_is_counts() -> None:
    tokens = LandmarkTokens(POINTS, TOKENS)
    said = tokens(torch.full((2, FRAMES, POINTS, 2), 0.5))
    assert said.tokens.shape == (2, FRAMES, POINTS, TOKENS)
    assert not torch.allclose(said.tokens[0, 0, 0], said.tokens[0, 0, 1])


def test_the_gradient_on_a_coordinate_is_that_of_finite_differences() -> None:
    talkformer, tokens = made().double(), moved(LandmarkTokens(POINTS, TOKENS)).double()
    features, _, still, reference = given()
    features, reference = features.double(), reference.double()
    source = Landmarks(still.tokens.double(), still.points.double())
    points = torch.rand(2, FRAMES, POINTS, 2, generator=torch.Generator().manual_seed(4)).double().requires_grad_()

    def loss(where: torch.Tensor) -> torch.Tensor:
        return talkformer(features, talkformer.prepare(SIZE, tokens(where), source, reference)).square().sum()

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
