from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from atldiff.config import PRESETS, ATLConfig, GeneratorConfig, RendererConfig
from atldiff.data import speech
from atldiff.data.manifest import Manifest, Split
from atldiff.data.speech import fit_identity, generator_scores, load_speech, point_weights
from atldiff.data.synthetic import make_synthetic
from atldiff.evaluation import networks
from atldiff.evaluation.networks import network_figures, network_table, renderer_errors
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.methods.atl.network import ATLModel, Renderer
from atldiff.methods.atl.painter import ATLPainter
from atldiff.methods.models import speaker_of

torch.set_num_threads(1)

TINY = ATLConfig(
    generator=GeneratorConfig(components=4, identity_components=2, width=16, blocks=1),
    renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
)
MEASURES = ("opening_correlation", "lip_error", "amplitude")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=3, clips=2, frames=24)


@pytest.fixture(scope="module")
def model(prepared: Manifest) -> ATLModel:
    """Random weights on a basis of one jaw drop and three small movements, orthonormal as a fitted one is."""
    torch.manual_seed(0)
    model = ATLModel(TINY)
    clips = [load_speech(prepared, entry) for entry in prepared.usable(Split.TRAIN)]
    drop = max((clip.displacements for clip in clips if clip), key=lambda d: np.abs(d).max())
    directions = np.random.default_rng(0).normal(0, 1e-2, (4, 478, 3)) * lower_face()[:, None]
    directions[0] = drop[np.abs(drop).max(axis=(1, 2)).argmax()]
    weights = point_weights()
    orthonormal = np.linalg.qr((directions * weights).reshape(4, -1).T)[0].T.reshape(4, 478, 3)
    mean, identity = fit_identity(np.stack([clip.neutral for clip in clips if clip]), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        generator = model.generator
        for name, value in (("basis", orthonormal / weights), ("identity_mean", mean), ("identity_basis", identity)):
            getattr(generator, name).copy_(torch.from_numpy(value))
        generator.basis[:, torch.from_numpy(lower_face() == 0)] = 0
        generator.scale.fill_(0.1)
    return model.eval()


@pytest.fixture(scope="module")
def figures(model: ATLModel, prepared: Manifest) -> dict[str, dict]:
    return {entry.record.name: network_figures(model, prepared, entry) for entry in prepared.usable(Split.TEST)}


class TestTable:
    def test_every_number_is_finite(self, figures: dict) -> None:
        table = network_table(figures)
        assert np.isfinite([row["value"] for row in table]).all()
        assert json.loads(json.dumps(table, allow_nan=False)) == table

    def test_rows(self, figures: dict) -> None:
        table = network_table(figures)
        rows = {(row["measure"], row["group"]): row for row in table}
        assert len(rows) == len(table)
        for preset in PRESETS:
            for group in ("all, pooled", "all, median clip"):
                row = rows[f"mouth error / warped prior, {preset}", group]
                assert row["clips"] == 2
                assert row["value"] > 0
        for measure in MEASURES:
            assert rows[f"{measure}, median clip", "all"]["clips"] == 2
            assert rows[f"{measure}, median clip", "others, sync checked"]["clips"] == 2
            assert (f"{measure}, median clip", "grid") not in rows  # no such source here

    def test_clips(self, figures: dict) -> None:
        for clip in figures.values():
            assert (clip["source"], clip["identity"], clip["sync_checked"]) == ("synthetic", "person2", True)
            assert set(clip["renderer"]) == {"prior", *PRESETS}
            assert set(clip["generator"]) == set(MEASURES)
            assert clip["renderer"]["prior"] > 0

    def test_it_is_made_of_the_clips(self, figures: dict) -> None:
        rows = {(row["measure"], row["group"]): row["value"] for row in network_table(figures)}
        sums = [clip["renderer"] for clip in figures.values()]
        for preset in PRESETS:
            pooled = sum(s[preset] for s in sums) / sum(s["prior"] for s in sums)
            assert rows[f"mouth error / warped prior, {preset}", "all, pooled"] == pytest.approx(pooled, abs=1e-4)
        for measure in MEASURES:
            values = [clip["generator"][measure] for clip in figures.values()]
            assert rows[f"{measure}, median clip", "all"] == pytest.approx(np.median(values), abs=1e-4)

    def test_it_is_repeatable(self, figures: dict, model: ATLModel, prepared: Manifest) -> None:
        entry = prepared.usable(Split.TEST)[0]
        assert network_figures(model, prepared, entry) == figures[entry.record.name]

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_clip_whose_mouth_rests_does_not_spoil_the_table(
        self, figures: dict, model: ATLModel, prepared: Manifest, tmp_path: Path
    ) -> None:
        shutil.copytree(prepared.folder, tmp_path / "data")
        manifest = Manifest.load(tmp_path / "data")
        entry = manifest.usable(Split.TEST)[0]
        tensors = load_file(manifest.tensors(entry))
        for name in ("points", "matrix", "windows"):
            tensors[name] = np.repeat(tensors[name][:1], len(tensors[name]), axis=0)
        save_file(tensors, manifest.tensors(entry))
        # The warped prior of a still picture has no error to divide by.
        resting = network_figures(model, manifest, entry)
        assert resting["renderer"] is resting["generator"] is None
        table = network_table({**figures, entry.record.name: resting})
        assert np.isfinite([row["value"] for row in table]).all()
        assert {row["clips"] for row in table} == {1}


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch):
    """Returns a renderer that paints what it is told to of the prior, whatever the network."""

    def make(answer) -> Renderer:
        monkeypatch.setattr(ATLPainter, "render", lambda self, prior, *rest: answer(prior))
        return Renderer(TINY.renderer)

    return make


class TestRendererErrors:
    @pytest.fixture
    def real(self, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
        """Collects the real frames that each window is measured against."""
        frames: list[np.ndarray] = []
        cut = networks.crop

        def spy(*arguments, **settings):
            images, source, target = cut(*arguments, **settings)
            assert settings == {"flip": False}
            frames.append((images[1:].astype(np.float32) / 127.5 - 1).transpose(3, 0, 1, 2)[None])
            return images, source, target

        monkeypatch.setattr(networks, "crop", spy)
        return frames

    def errors(self, renderer: Renderer, manifest: Manifest) -> dict[str, float]:
        sums = renderer_errors(renderer, manifest, manifest.usable(Split.TEST)[0])
        assert sums is not None
        return sums

    def test_the_real_frames_have_no_error(self, prepared: Manifest, real: list[np.ndarray], painted) -> None:
        sums = self.errors(painted(lambda prior: real[-1]), prepared)
        assert sums["prior"] > 0
        assert all(sums[preset] == 0 for preset in PRESETS)

    def test_the_prior_is_the_unit(self, prepared: Manifest, painted) -> None:
        sums = self.errors(painted(lambda prior: prior), prepared)
        assert all(sums[preset] == sums["prior"] for preset in PRESETS)

    def test_half_way_is_a_quarter(self, prepared: Manifest, real: list[np.ndarray], painted) -> None:
        sums = self.errors(painted(lambda prior: (prior + real[-1]) / 2), prepared)
        assert all(sums[preset] == pytest.approx(sums["prior"] / 4, rel=1e-4) for preset in PRESETS)

    def test_only_the_mouth_counts(self, prepared: Manifest, real: list[np.ndarray], painted) -> None:
        def spoiled(prior: np.ndarray) -> np.ndarray:
            frames = real[-1].copy()
            frames[..., :12, :] = 1.0
            return frames

        sums = self.errors(painted(spoiled), prepared)
        assert all(sums[preset] == 0 for preset in PRESETS)

    def test_a_fresh_network_gives_the_prior(self, prepared: Manifest) -> None:
        """With noise only inside the mask and a zero residual, each sampler ends on the prior."""
        torch.manual_seed(0)
        sums = self.errors(Renderer(TINY.renderer).eval(), prepared)
        assert all(sums[preset] == pytest.approx(sums["prior"], rel=1e-5) for preset in PRESETS)

    def test_short_clips_are_left_out(self, prepared: Manifest, tmp_path: Path, painted) -> None:
        (tmp_path / "clips").mkdir()
        entry = prepared.usable(Split.TEST)[0]
        tensors = load_file(prepared.tensors(entry))
        short = Manifest((entry,), tmp_path)
        save_file({name: tensors[name][:19] for name in ("points", "matrix", "windows")}, short.tensors(entry))
        assert renderer_errors(painted(lambda prior: prior), short, entry) is None


class TestGeneratorScores:
    def test_a_mouth_that_rests_has_an_error_of_one(self, model: ATLModel, prepared: Manifest, monkeypatch) -> None:
        monkeypatch.setattr(speech, "said_in", lambda speaker, clip: self.ramp(len(clip.mel) // 4, 1e-9))
        clip = load_speech(prepared, prepared.usable(Split.TEST)[0])
        assert clip is not None
        scores = generator_scores(speaker_of(model.generator), clip)
        assert scores is not None
        assert scores["lip_error"] == pytest.approx(1, abs=1e-4)
        assert scores["amplitude"] == pytest.approx(0, abs=1e-4)

    def ramp(self, frames: int, size: float) -> np.ndarray:
        return size * np.linspace(0, 1, frames)[:, None] * np.ones((1, 4))

    @pytest.mark.parametrize("gain", [1.0, 0.5])
    def test_the_truth_correlates_fully(
        self, model: ATLModel, prepared: Manifest, monkeypatch: pytest.MonkeyPatch, gain: float
    ) -> None:
        entry = prepared.usable(Split.TEST)[0]
        clip = load_speech(prepared, entry)
        assert clip is not None
        basis, scale = model.generator.basis.numpy(), model.generator.scale.numpy()
        truth = speech.coefficients(clip, basis, scale)
        monkeypatch.setattr(speech, "said_in", lambda speaker, clip: gain * truth)
        scores = generator_scores(speaker_of(model.generator), clip)
        assert scores is not None
        assert scores["opening_correlation"] == pytest.approx(1, abs=1e-4)
        assert scores["amplitude"] == pytest.approx(gain, abs=1e-3)
        assert np.abs(clip.displacements[:, LIPS_INNER]).max() > 0.05
        assert scores["lip_error"] < (0.4 if gain == 1 else 0.7)  # four movements hold most of the clip's

    def test_a_clip_without_sound_is_left_out(self, model: ATLModel, prepared: Manifest, tmp_path: Path) -> None:
        (tmp_path / "clips").mkdir()
        entry = prepared.usable(Split.TEST)[0]
        tensors = load_file(prepared.tensors(entry))
        del tensors["mel"]
        mute = Manifest((entry,), tmp_path)
        save_file(tensors, mute.tensors(entry))
        assert network_figures(model, mute, entry)["generator"] is None
