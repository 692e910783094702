"""Latent renderers whose mouth has two layers, of both methods: batches, what they paint, and runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.config import (
    LAYERED_SAMPLING,
    TRAIN_PRESETS,
    CodecConfig,
    CompletionConfig,
    DiffTalkerConfig,
    JointConfig,
    LatentRendererConfig,
    LMDiffConfig,
    SyncConfig,
    TalkRendererConfig,
    TrainConfig,
    sampling_presets,
)  # fmt: skip
from atldiff.data.manifest import Split
from atldiff.data.mouths import cut, cut_map, load_mouths
from atldiff.data.posed import load_posed
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import CheckpointError, DataError
from atldiff.evaluation.networks import network_figures
from atldiff.landmarks.rest import lower_face
from atldiff.methods.latent_inputs import latent_window
from atldiff.methods.lmdiff import inputs as lmdiff_inputs
from atldiff.methods.lmdiff.network import LMDiffModel
from atldiff.methods.lmdiff.training.joint_task import joint_task
from atldiff.methods.models import build
from atldiff.training.latent_mouth_data import latent_mouth_set
from atldiff.training.latent_renderer_data import needed_points
from atldiff.training.mouth_task import RendererLoss
from atldiff.training.run import train_stage
from atldiff.video.window import STORED_MOUTH, apply

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.data.manifest import Manifest
    from atldiff.methods.difftalker.network import DiffTalkerModel
    from atldiff.training.mouth_data import MouthSet

torch.set_num_threads(1)

CODEC = CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1)
GENERATOR = CompletionConfig(width=16, layers=1, heads=2, feed_forward=16, components=6, context_frames=8)
WINDOW = {"side": 48, "resolution": 96, "height": 80, "origin": (40, 44), "mask_reach_px": 6.0, "pixel_weight": 0.0}
NETWORK = {"codec": CODEC, "widths": (16, 32), "blocks": (1, 1), "layered": True, **WINDOW}
MODELS = {
    "difftalker": DiffTalkerConfig(
        generator=GENERATOR, renderer=LatentRendererConfig(**NETWORK, control_blocks=(1, 1))
    ),
    "lmdiff": LMDiffConfig(
        generator=GENERATOR, renderer=TalkRendererConfig(**NETWORK, talk_levels=(1,), token_width=16)
    ),
}  # fmt: skip


def config_of(method: str) -> TrainConfig:
    return replace(
        TRAIN_PRESETS[method], model=MODELS[method], steps=4, clips_per_batch=2, frames=2, save_every=2, probe_every=4,
        warmup_steps=1,
    )  # fmt: skip


@pytest.fixture(params=list(MODELS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=24)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    monkeypatch.setattr(
        "atldiff.data.mouths.sharp_share", lambda mouth_px, sharpness, scale: 1.0
    )  # drawn ones are small
    monkeypatch.setattr("atldiff.training.mouth_task.PROBE_BATCHES", 1)
    monkeypatch.setattr("atldiff.training.mouth_task.PROBE_CLIPS", 2)


def coded(method: str, *, moved: bool = False) -> DiffTalkerModel | LMDiffModel:
    """Return a fresh model whose codec counts as trained. moved: from where its ends change nothing."""
    torch.manual_seed(0)
    model = build(MODELS[method])
    model.renderer.codec.latent_scale.fill_(0.9)  # pyright: ignore
    if moved:
        with torch.no_grad():
            for parameter in model.renderer.denoiser.parameters():  # pyright: ignore
                if not parameter.any():
                    parameter.normal_(0, 0.1)
    return model  # pyright: ignore[reportReturnType]


def batches(method: str, prepared: Manifest) -> MouthSet:
    renderer = MODELS[method].renderer
    clips = [load_mouths(prepared, entry, needed_points(renderer)) for entry in prepared.usable(Split.TRAIN)]
    return latent_mouth_set(clips, renderer, frames=2, seed=3)


@pytest.fixture
def start(method: str, tmp_path: Path) -> Path:
    checkpoint.save_model(coded(method), tmp_path / "start", half=False)
    return tmp_path / "start"


def test_batches_have_both_layers(method: str, prepared: Manifest) -> None:
    batch = batches(method, prepared).batch(0, range(3))
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    own = (
        {"hint": (3, 16, 2, 80, 96)}
        if method == "difftalker"
        else {"shown": (3, 7, 2, 80, 96), "reference": (3, 3, 80, 96), "source": (3, 131, 2), "points": (3, 2, 131, 2)}
    )
    assert shapes == {
        "target": (3, 3, 2, 80, 96), "prior": (3, 3, 2, 80, 96), "mask": (3, 1, 2, 80, 96),
        "mouth": (3, 1, 2, 80, 96), "noise": (3, 4, 1, 20, 24), "level": (3,), "beside": (3, 5, 80, 96),
        "centre": (3, 2), "sharp": (3,), "clips": (3,), "step": (3,), **own,
    }  # fmt: skip
    again = batches(method, prepared).batch(0, range(1, 3))
    for name, value in again.items():
        assert torch.equal(value, batch[name][1:])


def test_a_fresh_one_paints_its_prior(method: str, prepared: Manifest) -> None:
    model, batch = coded(method), batches(method, prepared).batch(0, range(2))
    painted = model.renderer.painted(batch)
    assert torch.allclose(painted, batch["prior"].float(), atol=1e-5)


def test_what_it_paints_stays_in_the_mask_and_asks_every_condition(method: str, prepared: Manifest) -> None:
    model, batch = coded(method, moved=True), batches(method, prepared).batch(0, range(2))
    told = "hint" if method == "difftalker" else "shown"
    late = torch.tensor([999, 400])
    with torch.no_grad():
        painted = model.renderer.painted(batch | {"level": late})
        outside = (batch["mask"] == 0).expand_as(painted)
        assert torch.equal(painted[outside], batch["prior"].float()[outside])
        behind = batch[told].clone()
        behind[:, -4:-1] += 0.5  # what is behind the lips
        for change in (
            {told: behind}, {"noise": batch["noise"].roll(1, -1)}, {"level": late.flip(0)},
            {"prior": batch["prior"].flip(0)},
        ):  # fmt: skip
            assert not torch.allclose(painted, model.renderer.painted(batch | {"level": late} | change), atol=1e-4)


def test_the_loss_reaches_the_denoiser_and_not_the_codec(
    method: str, prepared: Manifest, network: LpipsAlexNet
) -> None:
    model, batch = coded(method, moved=True), batches(method, prepared).batch(0, range(2))
    model.renderer.codec.requires_grad_(False)
    loss = RendererLoss(model.renderer, replace(config_of(method), bfloat16=False), network)
    losses = loss(model.renderer.denoiser, batch | {"step": torch.tensor([1_000, 1_000])})
    assert {"perceptual", "matching", "square", "motion"} <= set(losses)
    losses["loss"].backward()
    missed = [name for name, p in model.renderer.denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in missed if "bias" not in name], missed  # softmax does not see a key's bias


def test_a_run_resumes_and_its_checkpoint_paints(
    method: str, prepared: Manifest, tmp_path: Path, network: LpipsAlexNet, start: Path
) -> None:
    config = config_of(method)
    settings = {"start": start, "workers": 0, "network": network}
    assert train_stage(config, prepared.folder, tmp_path / "whole", **settings) == 4
    assert train_stage(config, prepared.folder, tmp_path / "parts", stop_after=2, **settings) == 2
    assert train_stage(config, prepared.folder, tmp_path / "parts", **settings) == 4
    whole, parts = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    model = checkpoint.load_model(tmp_path / "whole" / "checkpoint")
    assert model.config == MODELS[method]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole" / "checkpoint", start))
    for name, value in theirs.items():
        if name.startswith("renderer.codec."):
            assert torch.allclose(ours[name].float(), value.float(), atol=1e-3), name
    probe = (tmp_path / "whole" / "probe.jsonl").read_text()
    for name in ("mouth_ratio_fast", "perceptual_best", "detail_prior"):
        assert name in probe
    figures = network_figures(model, prepared, prepared.usable(Split.TRAIN)[0])  # pyright: ignore
    assert figures["renderer"] is None or set(figures["renderer"]) == {"prior", *LAYERED_SAMPLING}


def test_it_needs_a_trained_codec_and_a_prepared_window(method: str, prepared: Manifest, tmp_path: Path) -> None:
    config = config_of(method)
    with pytest.raises(CheckpointError, match="a codec that was never trained"):
        train_stage(config, prepared.folder, tmp_path / "run", workers=0)
    model = coded(method)
    changed = replace(model.config, renderer=replace(model.config.renderer, origin=(10, 44)))
    model.config = changed  # pyright: ignore[reportAttributeAccessIssue]
    wide = replace(config, model=changed)
    checkpoint.save_model(model, tmp_path / "start", half=False)
    with pytest.raises(DataError, match="config renderer: a window of .*which is what `atldiff prepare` keeps"):
        train_stage(wide, prepared.folder, tmp_path / "run", start=tmp_path / "start", workers=0)


def test_presets_paint_every_other_frame_first(method: str) -> None:
    assert sampling_presets(MODELS[method].renderer) is LAYERED_SAMPLING
    assert sampling_presets(replace(MODELS[method].renderer, layered=False))["best"].steps == 8


def test_mouths_lie_where_their_landmarks_are_told(prepared: Manifest) -> None:
    entry = prepared.usable(Split.TRAIN)[0]
    clip = load_mouths(prepared, entry, lmdiff_inputs.NEEDED)
    posed = load_posed(prepared, clip.name, lmdiff_inputs.NEEDED, STORED_MOUTH)
    above = lower_face()[lmdiff_inputs.NEEDED] == 0  # what speech does not move is where it was tracked
    assert above.sum() > 5
    assert np.abs(posed.rest - clip.points)[:, above].max() < 0.05
    frames, geometry = np.array([3, 4]), latent_window(MODELS["lmdiff"].renderer)
    for flip in (False, True):
        _, points = cut(clip, frames, geometry, np.array([2, -1]), flip=flip)
        to_window = cut_map(geometry, np.array([2, -1]), flip=flip)
        assert np.allclose(apply(to_window, clip.points[frames]), points, atol=1e-3)


def test_joint_training_reaches_the_generator_through_the_layers(prepared: Manifest, network: LpipsAlexNet) -> None:
    model = coded("lmdiff", moved=True)
    assert isinstance(model, LMDiffModel)
    model.generator.basis.normal_(0, 0.02)
    for parameter in model.generator.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    config = replace(
        config_of("lmdiff"), stage="joint", adversarial_weight=0.0, min_sync=0.0, bfloat16=False, frames=3, steps=2
    )  # fmt: skip
    task = joint_task(model, prepared, config, lambda module: None, network)
    batch = task.source.batch(0, range(3))
    losses = task.loss(model, batch | {"is_true": torch.zeros(3, dtype=torch.bool)})
    assert {"perceptual", "square", "position"} <= set(losses)
    drawn = torch.stack([losses[name] for name in ("perceptual", "square", "edges", "motion")]).sum()
    grads = torch.autograd.grad(drawn, list(model.generator.parameters()), allow_unused=True)
    assert any(grad is not None and grad.any() for grad in grads)
    with torch.no_grad():
        probed = task.probe(model).scalars
    assert set(probed) >= {f"mouth_ratio_{name}" for name in LAYERED_SAMPLING}
    with pytest.raises(ValueError, match="adversarial_weight.*stage renderer of a layered renderer"):
        replace(config, adversarial_weight=0.1)


def test_no_expert_judges_a_layered_renderer() -> None:
    with pytest.raises(ValueError, match=r"joint\.sync: got 'an expert', expected none for a layered renderer"):
        replace(MODELS["lmdiff"], joint=JointConfig(sync=SyncConfig()))
