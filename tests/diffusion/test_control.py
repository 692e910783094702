from __future__ import annotations

import torch

from atldiff.diffusion.control import ControlBranch
from atldiff.diffusion.unet3d import UNet3D

torch.set_num_threads(1)

WIDTHS, BLOCKS = (16, 32), (1, 1)


def networks() -> tuple[UNet3D, ControlBranch]:
    torch.manual_seed(0)
    unet = UNet3D(4, 1, WIDTHS, BLOCKS, channels_out=4)
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return unet, ControlBranch(9, 4, WIDTHS, BLOCKS)


def given(frames: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x, hint = (torch.randn(2, c, frames, s, s, generator=random) for c, s in ((4, 8), (9, 32)))
    return x, hint, torch.randn(2, 32, generator=random)


def test_a_fresh_branch_changes_nothing() -> None:
    unet, branch = networks()
    x, hint, embedding = given()
    assert torch.equal(unet(x, embedding, injections=branch(hint)), unet(x, embedding))


def test_what_is_injected_has_the_shapes_of_its_places() -> None:
    _, branch = networks()
    _, hint, _ = given()
    assert [tuple(each.shape) for each in branch(hint)] == [(6, 16, 8, 8), (6, 32, 4, 4), (6, 32, 4, 4)]


def test_each_injection_reaches_the_output() -> None:
    unet, branch = networks()
    x, hint, embedding = given()
    bare = unet(x, embedding)
    for place in range(3):
        added = branch(hint)
        added[place] = added[place] + 1
        assert not torch.allclose(unet(x, embedding, injections=added), bare, atol=1e-4)


def test_the_branch_learns_from_the_first_step_on() -> None:
    unet, branch = networks()
    unet.requires_grad_(False)
    x, hint, embedding = given()
    unet(x, embedding, injections=branch(hint)).square().mean().backward()
    for inject in branch.inject:
        assert inject.weight.grad is not None
        assert inject.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in unet.parameters())
