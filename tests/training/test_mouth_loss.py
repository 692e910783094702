"""What is asked of lips besides their places: to meet, to part, and to move as far as the true ones."""

from __future__ import annotations

import pytest
import torch

from atldiff.training.mouth_loss import CLOSED, OPEN, PARTED, MouthLoss, closures, spread

FRAMES = 20


@pytest.fixture
def loss() -> MouthLoss:
    """Of one coefficient, the lip opening itself."""
    lips = torch.zeros(1, 80, 3)
    lips[0, :, 1] = 0.5
    return MouthLoss(lips, torch.ones(1), torch.ones(1))


def told(loss: MouthLoss, said: torch.Tensor, true: torch.Tensor, valid: torch.Tensor, *asked: torch.Tensor) -> dict:
    return {name: float(value) for name, value in loss(said[..., None], true[..., None], valid, 2.0, asked).items()}


def test_closures_of_speech_are_no_pauses() -> None:
    opening = torch.full((1, FRAMES), 0.1)
    opening[0, 8:10] = 0.5 * CLOSED  # between open frames
    opening[0, 14:] = 0.0  # a pause
    valid = torch.ones(1, FRAMES)
    assert torch.nonzero(closures(opening, valid)[0]).flatten().tolist() == [8, 9, 14, 15, 16, 17]
    valid[0, 9] = 0
    assert 9 not in torch.nonzero(closures(opening, valid)[0]).flatten().tolist()
    assert not closures(torch.full((1, FRAMES), 0.5 * (CLOSED + OPEN)), torch.ones(1, FRAMES)).any()


def test_lips_that_stay_open_at_a_bilabial_are_worse(loss: MouthLoss) -> None:
    nothing = torch.zeros(1, FRAMES)
    closed = nothing.clone()
    closed[0, 5:7] = 1
    open_, shut = torch.full((1, FRAMES), 0.1), torch.full((1, FRAMES), 0.1)
    shut[0, 5:7] = -0.05
    # No mouth was filmed: nothing but the closure counts.
    parts = [told(loss, said, nothing, nothing, closed, nothing) for said in (open_, shut)]
    assert parts[0]["closure"] > 0.01
    assert parts[1]["closure"] == 0
    assert parts[0]["loss"] > parts[1]["loss"]


def test_lips_that_never_part_are_worse(loss: MouthLoss) -> None:
    nothing = torch.zeros(1, FRAMES)
    parted = nothing.clone()
    parted[0, 3] = 1
    flat, moving = nothing.clone(), nothing.clone()
    moving[0, 3] = PARTED
    assert told(loss, flat, nothing, nothing, nothing, parted)["closure"] == pytest.approx(PARTED / FRAMES)
    assert told(loss, moving, nothing, nothing, nothing, parted)["closure"] == 0


def test_lips_that_meet_where_true_ones_are_apart_are_worse(loss: MouthLoss) -> None:
    valid, nothing = torch.ones(1, FRAMES), torch.zeros(1, FRAMES)
    true = torch.full((1, FRAMES), 2 * OPEN)
    true[0, 10:] = 0.9 * OPEN  # nearly closed: nobody minds
    shut = true.clone()
    shut[0, [4, 12]] = 0
    assert told(loss, true, true, valid, nothing, nothing)["apart"] == 0
    assert told(loss, shut, true, valid, nothing, nothing)["apart"] == pytest.approx(OPEN / FRAMES)
    far = true + 1.0
    assert told(loss, far, true, valid, nothing, nothing)["apart"] == 0
    valid[0, 4] = 0  # outside the clip
    assert told(loss, shut, true, valid, nothing, nothing)["apart"] == 0


def test_lips_that_move_less_than_the_true_ones_are_worse(loss: MouthLoss) -> None:
    valid, nothing = torch.ones(1, FRAMES), torch.zeros(1, FRAMES)
    true = 0.1 + 0.05 * torch.sin(torch.arange(FRAMES))[None]
    half = 0.1 + 0.025 * torch.sin(torch.arange(FRAMES))[None]
    assert told(loss, true, true, valid, nothing, nothing)["spread"] == pytest.approx(0, abs=1e-6)
    shrunk = told(loss, half, true, valid, nothing, nothing)["spread"]
    assert shrunk == pytest.approx(float(spread(true, valid)) / 2, rel=1e-3)


def test_other_stages_are_asked_for_nothing_more(loss: MouthLoss) -> None:
    said, true, valid = torch.rand(2, FRAMES, 1), torch.rand(2, FRAMES, 1), torch.ones(2, FRAMES)
    assert set(loss(said, true, valid, 2.0)) == {"loss", "position", "velocity", "opening_correlation"}
