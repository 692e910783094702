"""What the published method adds to the U-Net: tokens that pixels attend to, labels, and who the tokens come from."""

from __future__ import annotations

import pytest
import torch

from atldiff.diffusion.blocks import CrossAttention, attention_heads, time_embedding
from atldiff.diffusion.unet3d import UNet3D
from atldiff.methods.atl_published.identity import IdentityEncoder

torch.set_num_threads(1)

WIDTH, CONTEXT, TOKENS = 32, 12, 5


@pytest.fixture
def attention() -> CrossAttention:
    torch.manual_seed(0)
    layer = CrossAttention(WIDTH, CONTEXT).eval()
    torch.nn.init.normal_(layer.out.weight, std=0.1)
    torch.nn.init.normal_(layer.out.bias, std=0.1)  # type: ignore[arg-type]
    return layer


class TestCrossAttention:
    def test_is_the_identity_when_fresh(self) -> None:
        x = torch.randn(6, WIDTH, 3, 4)
        assert torch.equal(CrossAttention(WIDTH, CONTEXT)(x, torch.randn(2, TOKENS, CONTEXT)), x)

    @pytest.mark.parametrize("width", [32, 96, 64, 112])
    def test_equals_attention_written_out(self, width: int) -> None:
        torch.manual_seed(1)
        layer = CrossAttention(width, CONTEXT)
        torch.nn.init.normal_(layer.out.weight, std=0.1)
        x, context = torch.randn(2 * 3, width, 2, 2), torch.randn(2, TOKENS, CONTEXT)
        heads = attention_heads(width)
        with torch.inference_mode():
            out = layer(x, context)
            query = layer.query(layer.norm(x))
            keys, values = layer.key_value(context).chunk(2, dim=-1)  # (2, N, C) each
            for frame, row, column in ((0, 0, 0), (2, 1, 0), (4, 1, 1)):  # frames 0 to 2 are the first clip's
                clip = frame // 3
                mixed = []
                for part in torch.arange(width).chunk(heads):
                    scores = keys[clip][:, part] @ query[frame, part, row, column] / len(part) ** 0.5
                    mixed.append(scores.softmax(0) @ values[clip][:, part])
                wanted = x[frame, :, row, column] + layer.out(torch.cat(mixed)[None, :, None, None])[0, :, 0, 0]
                assert torch.allclose(out[frame, :, row, column], wanted, atol=1e-4)

    def test_all_frames_of_a_clip_see_its_tokens_and_no_other_s(self, attention: CrossAttention) -> None:
        x, context = torch.randn(2 * 3, WIDTH, 3, 3), torch.randn(2, TOKENS, CONTEXT)
        changed = context.clone()
        changed[1] += 1
        with torch.inference_mode():
            difference = (attention(x, changed) - attention(x, context)).abs().amax(dim=(1, 2, 3))
        assert not difference[:3].any()
        assert (difference[3:] > 1e-4).all()

    def test_frames_do_not_mix(self, attention: CrossAttention) -> None:
        x, context = torch.randn(4, WIDTH, 3, 3), torch.randn(1, TOKENS, CONTEXT)
        changed = x.clone()
        changed[2] += torch.randn(WIDTH, 1, 1)
        with torch.inference_mode():
            difference = (attention(changed, context) - attention(x, context)).abs().amax(dim=(1, 2, 3))
        assert difference[2] > 0
        assert not difference[[0, 1, 3]].any()

    def test_the_order_of_tokens_does_not_matter(self, attention: CrossAttention) -> None:
        x, context = torch.randn(2, WIDTH, 3, 3), torch.randn(2, TOKENS, CONTEXT)
        with torch.inference_mode():
            assert torch.allclose(attention(x, context), attention(x, context.flip(1)), atol=1e-5)


def network(**changes: int) -> UNet3D:
    torch.manual_seed(0)
    made = UNet3D(6, 2, (16, 32), (1, 1), **changes).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return made


class TestUNet:
    X = torch.randn(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_channels_out(self, channels: int) -> None:
        made = network(channels_out=channels)
        with torch.inference_mode():
            out = made(self.X, time_embedding(torch.tensor([0.1, 0.9]), made.embedding_width))
        assert out.shape == (2, channels, 3, 16, 16)

    def test_without_tokens_and_labels_nothing_is_added(self) -> None:
        """Weights that were trained before these came still fit, by name."""
        plain, full = network(), network(context_width=CONTEXT, labels=9)
        names = set(full.state_dict()) - set(plain.state_dict())
        assert names
        assert all(name.startswith(("context.", "labels.")) for name in names)
        assert set(plain.state_dict()) < set(full.state_dict())

    def test_tokens_and_labels_matter_and_stay_with_their_clip(self) -> None:
        made = network(context_width=CONTEXT, labels=9)
        time = time_embedding(torch.tensor([0.5, 0.5]), made.embedding_width)
        context, label = torch.randn(2, TOKENS, CONTEXT), torch.tensor([0, 8])
        other_context, other_label = context.clone(), torch.tensor([0, 3])
        other_context[1] += 1
        with torch.inference_mode():
            base = made(self.X, time, context, label)
            for changed in (made(self.X, time, other_context, label), made(self.X, time, context, other_label)):
                difference = (changed - base).abs().amax(dim=(1, 2, 3, 4))
                assert difference[0] < 1e-5
                assert difference[1] > 1e-4

    def test_gradients_reach_every_parameter(self) -> None:
        made = network(context_width=CONTEXT, labels=2).train()
        time = time_embedding(torch.tensor([0.5, 0.8]), made.embedding_width)
        out = made(self.X, time, torch.randn(2, TOKENS, CONTEXT), torch.tensor([0, 1]))
        (out * torch.randn_like(out)).sum().backward()
        for name, parameter in made.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


class TestIdentityEncoder:
    @pytest.mark.parametrize(("tokens", "width", "side"), [(64, 32, 128), (16, 8, 32), (1, 4, 64), (49, 12, 96)])
    def test_tokens_of_a_picture(self, tokens: int, width: int, side: int) -> None:
        encoder = IdentityEncoder(tokens, width).eval()
        with torch.inference_mode():
            out = encoder(torch.rand(2, 3, side, side))
            assert out.shape == (2, tokens, width)
            assert out.isfinite().all()
            assert (out[0] - out[1]).abs().max() > 1e-4

    def test_a_token_is_of_its_place_in_the_picture(self) -> None:
        """Rows of tokens are rows of the picture: a change in a corner is seen most in that corner's token."""
        torch.manual_seed(0)
        encoder = IdentityEncoder(16, 8).eval()
        picture = torch.rand(1, 3, 128, 128) * 0.2 + 0.4
        with torch.inference_mode():
            for row, column in ((0, 0), (0, 3), (3, 1)):
                changed = picture.clone()
                changed[:, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] *= 1.6
                moved = (encoder(changed) - encoder(picture)).norm(dim=2)[0]
                assert int(moved.argmax()) == 4 * row + column

    def test_equal_places_are_told_apart(self) -> None:
        out = IdentityEncoder(16, 8).eval()(torch.full((1, 3, 64, 64), 0.5))[0]
        assert torch.cdist(out, out).add(torch.eye(16)).min() > 0.01

    def test_gradients_reach_every_parameter(self) -> None:
        encoder = IdentityEncoder(16, 8)
        out = encoder(torch.rand(2, 3, 64, 64))
        (out * torch.randn_like(out)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
