"""A layered renderer's stage: what it paints beside the real mouth, as pixels, as features, and to an adversary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from atldiff.config import sampling_presets
from atldiff.data.manifest import Split
from atldiff.data.mouths import load_mouths
from atldiff.diffusion.edges import edge_errors
from atldiff.errors import DataError
from atldiff.methods.atl.inputs import NEEDED
from atldiff.methods.atl.network import Renderer
from atldiff.methods.models import painter_of
from atldiff.training.checks import check_mouth_window
from atldiff.training.latent_mouth_data import latent_mouth_set
from atldiff.training.latent_renderer_data import needed_points
from atldiff.training.latent_renderer_task import check_renderer, freeze_codec
from atldiff.training.mouth_data import mouth_set
from atldiff.training.mouth_judges import MouthAdversary, mouth_crops, perceptual, weighted
from atldiff.training.painted import on_device, paint_batch
from atldiff.training.task import Probe, Rival, Task, strips_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.backbones.alexnet import LpipsAlexNet
    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
    from atldiff.methods.lmdiff.network import LMDiffModel, TalkRenderer

MOUTH_WEIGHT = 2.0
"""Extra weight of the pixels' error inside the mouth, over the weight of the mask."""
PIXELS, EDGES, MOTION = 2.5, 0.2, 2.5
"""Weights of squared error, of that of differences of neighbours, and of that of differences of frames."""
MATCHING_WEIGHT = 10.0
"""Weight of the adversary's maps against that of its verdict."""
RAMP_STEPS = 40
"""Steps over which the adversary's weight rises."""
R1_WEIGHT, R1_EVERY = 2.0, 8
RIVAL_RATE = 1e-3
"""Peak learning rate of the adversary."""
PROBE_BATCHES, PROBE_CLIPS, PROBE_FRAMES = 4, 8, 3
PROBE_SEED = 20_261


class RendererLoss:
    """The loss of a layered renderer, and of the adversary that it is trained against.

    network: of LPIPS, or None. The adversary judges what the last call of the loss has painted.
    """

    def __init__(
        self, renderer: Renderer | LatentRenderer | TalkRenderer, config: TrainConfig, network: LpipsAlexNet | None
    ) -> None:
        self.renderer, self.config, self.network = renderer, config, network
        self.adversary = MouthAdversary(config.frames) if config.adversarial_weight else None
        self._judged: dict[str, torch.Tensor] = {}
        if network is not None:
            network.requires_grad_(False)

    def __call__(self, module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch: means over its clips, so that equal parts average to it."""
        renderer, config, scale = self.renderer, self.config, self.renderer.geometry.scale
        target, prior, mask, mouth = (batch[name].float() for name in ("target", "prior", "mask", "mouth"))
        sharp = batch["sharp"]
        made = renderer.painted(batch)
        real = prior + mask * (target - prior)
        weight = mask + MOUTH_WEIGHT * mouth
        weight = weight / (len(weight) * weight.sum(dim=(1, 2, 3, 4), keepdim=True))
        difference = made - real
        square = (weight * difference.square().mean(dim=1, keepdim=True)).sum()
        edges = edge_errors(difference, weight).sum()
        motion = (weight[:, :, 1:] * (difference[:, :, 1:] - difference[:, :, :-1]).abs().mean(1, keepdim=True)).sum()
        losses = {"square": square, "edges": edges, "motion": motion}
        total = PIXELS * square + EDGES * edges + MOTION * motion
        crops = {name: mouth_crops(value, batch["centre"], scale) for name, value in (("made", made), ("real", real))}
        if self.network is not None and config.perceptual_weight:
            with torch.autocast(made.device.type, torch.bfloat16, enabled=config.bfloat16):
                distance = perceptual(self.network, crops["made"], crops["real"])
            losses["perceptual"] = (sharp * distance).mean()
            total = total + config.perceptual_weight * losses["perceptual"]
        if self.adversary is not None:
            crops["beside"] = mouth_crops(batch["beside"].float()[:, :, None], batch["centre"], scale)[:, :, 0]
            crops["mouth"] = mouth_crops(mouth, batch["centre"], scale).amax(2)
            self._judged = {name: value.detach() for name, value in crops.items()} | {"sharp": sharp}
            self.adversary.requires_grad_(False)
            verdict, maps = self.adversary(crops["made"], crops["beside"])
            with torch.no_grad():
                _, wanted = self.adversary(crops["real"], crops["beside"])
            self.adversary.requires_grad_(True)
            fooled = -(sharp * weighted(verdict, crops["mouth"])).mean()
            matching = sum(
                (sharp * weighted((own - other).abs().mean(1), crops["mouth"])).mean()
                for own, other in zip(maps, wanted, strict=True)
            ) / len(maps)
            ramp = min(1.0, float(batch["step"][0]) / RAMP_STEPS)
            total = total + ramp * config.adversarial_weight * (fooled + MATCHING_WEIGHT * matching)
            losses |= {"fooled": fooled, "matching": torch.as_tensor(matching)}
        with torch.no_grad():
            before = (mouth * (prior - target).square()).sum()
            losses["mouth_ratio"] = (mouth * (made - target).square()).sum() / before.clamp_min(1e-9)
        return {"loss": total} | losses

    def of_rival(self, step: int) -> torch.Tensor:
        """Return the adversary's loss over what the last call painted: the mean over its clips."""
        assert self.adversary is not None  # noqa: S101 - for the type checker
        judged, sharp = self._judged, self._judged["sharp"]
        real = judged["real"].requires_grad_(step % R1_EVERY == 0)
        yes, _ = self.adversary(real, judged["beside"])
        no, _ = self.adversary(judged["made"], judged["beside"])
        loss = sum(
            (sharp * weighted(functional.relu(1 - sign * scores), judged["mouth"])).mean()
            for sign, scores in ((1, yes), (-1, no))
        )
        if step % R1_EVERY == 0:
            (slope,) = torch.autograd.grad((sharp * weighted(yes, judged["mouth"])).sum(), real, create_graph=True)
            loss = loss + R1_WEIGHT / 2 * R1_EVERY * slope.square().sum((1, 2, 3, 4)).mean()
        return torch.as_tensor(loss)


def mouth_task(
    model: ATLModel | DiffTalkerModel | LMDiffModel,
    manifest: Manifest,
    config: TrainConfig,
    write: Callable[[nn.Module], None],
    network: LpipsAlexNet | None,
) -> Task:
    """Return the stage of a layered renderer over a prepared folder; a codec stays as it is.

    network: of LPIPS, or None.

    Raises:
        DataError: no clip to train on, or a window that is not prepared. CheckpointError: the codec was never trained.
    """
    renderer, scale = model.renderer, model.renderer.geometry.scale
    if isinstance(renderer, Renderer):
        check_mouth_window(renderer.geometry)
    else:
        check_renderer(renderer)
    sets = {}
    for split in (Split.TRAIN, Split.VAL):
        frames, seed = (config.frames, config.seed) if split is Split.TRAIN else (PROBE_FRAMES, PROBE_SEED)
        changes = {"sharpen": config.sharpen, "tint": config.tint} if split is Split.TRAIN else {}
        if isinstance(renderer, Renderer):
            clips = [load_mouths(manifest, entry, NEEDED, scale) for entry in manifest.usable(split)]
            sets[split] = mouth_set(clips, renderer.config, frames=frames, seed=seed, **changes)
        else:
            needed = needed_points(renderer.config)
            clips = [load_mouths(manifest, entry, needed, scale) for entry in manifest.usable(split)]
            sets[split] = latent_mouth_set(clips, renderer.config, frames=frames, seed=seed, **changes)
    if not sets[Split.TRAIN].clips:
        raise DataError(f"data {manifest.folder}: no clip to train on; expected a split with people in `train`")
    steps = range(PROBE_BATCHES if sets[Split.VAL].clips else 0)
    held_out = [sets[Split.VAL].batch(step, range(PROBE_CLIPS)) for step in steps]
    module: nn.Module = renderer
    if isinstance(renderer, Renderer):
        renderer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    else:
        write, module = freeze_codec(renderer, write, bfloat16=config.bfloat16), renderer.denoiser
    loss = RendererLoss(renderer, config, network)
    presets = sampling_presets(renderer.config)

    def probe(module: nn.Module) -> Probe:
        device = renderer.device
        painter = painter_of(renderer)
        noise = painter.window_noise(PROBE_SEED, 0, PROBE_FRAMES)
        sums: dict[str, list[float]] = {}
        before, strips = 0.0, []
        for batch in held_out:
            batch = on_device(batch, device)
            prior, mask, target, mouth = (batch[name] for name in ("prior", "mask", "target", "mouth"))
            before += float((mouth * (prior - target).square()).sum())
            real = prior + mask * (target - prior)
            frames = {"prior": prior}
            for name, sampling in presets.items():
                made, base = paint_batch(painter, batch, noise, sampling.steps)
                frames[name] = prior + (made - base)
            for name, made in frames.items():
                sums.setdefault(f"mouth_ratio_{name}", []).append(float((mouth * (made - target).square()).sum()))
                if network is not None:
                    crops = [mouth_crops(value, batch["centre"], scale) for value in (made, real)]
                    sums.setdefault(f"perceptual_{name}", []).append(float(perceptual(network, *crops).mean()))
                sums.setdefault(f"detail_{name}", []).append(float(detail(made, mouth) / detail(real, mouth)))
            shown = [prior, frames["fast"], frames["balanced"], frames["best"], target]
            strips.append(torch.cat(shown, -1)[:, :, 1])
        scalars = {
            name: sum(values) / max(before, 1e-9) if name.startswith("mouth") else sum(values) / len(values)
            for name, values in sums.items()
        }
        return Probe(scalars, strips_picture(strips))

    rival = None
    if loss.adversary is not None:
        rates = replace(config, optimiser="adamw", learning_rate=RIVAL_RATE, weight_decay=0.0)
        rival = Rival(loss.adversary.to(renderer.device), loss.of_rival, rates)
    return Task(module, sets[Split.TRAIN], loss, probe, write, bfloat16=config.bfloat16, rival=rival)


def detail(frames: torch.Tensor, mouth: torch.Tensor) -> torch.Tensor:
    """Return the mean gradient energy of frames (B, 3, T, H, W) inside mouths (B, 1, T, H, W)."""
    grey = frames.mean(1, keepdim=True)
    across, down = grey.diff(dim=-1)[..., :-1, :], grey.diff(dim=-2)[..., :-1]
    inside = mouth[..., :-1, :-1]
    return (inside * (across.square() + down.square())).sum() / inside.sum().clamp_min(1)
