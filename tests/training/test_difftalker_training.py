"""The three stages of DiffTalker on drawn people: batches, exact resumption, what each carries along."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.config import (
    ATLConfig,
    CodecConfig,
    CompletionConfig,
    DiffTalkerConfig,
    LatentRendererConfig,
    TrainConfig,
)
from atldiff.data.completion import DRIVES, completion_scores, completions, load_seen
from atldiff.data.manifest import Manifest, Split
from atldiff.data.speech import ClipSpeech, fit_basis, in_step, load_speech
from atldiff.data.spoken import Spoken
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import load_clip
from atldiff.diffusion.codec import Codec
from atldiff.errors import CheckpointError, DataError
from atldiff.evaluation.networks import network_figures, network_table
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.landmarks.completion_points import FILMED, MADE_UP, MISSING, seen_indices
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.methods.difftalker.network import DiffTalkerModel
from atldiff.methods.difftalker.training.renderer_data import LatentSet
from atldiff.methods.latent_inputs import NEEDED
from atldiff.methods.models import speaker_of
from atldiff.training.codec_data import CodecSet
from atldiff.training.completion_data import CompletionSet, SeenStatesSet
from atldiff.training.run import align_data, train_stage
from atldiff.training.speech_states import HeardClip
from atldiff.training.states_data import StatesSet

torch.set_num_threads(1)

FRAMES = 40
TINY = DiffTalkerConfig(
    generator=CompletionConfig(width=16, layers=1, heads=2, feed_forward=16, components=6),
    renderer=LatentRendererConfig(
        codec=CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1),
        widths=(16, 32), blocks=(1, 1), control_blocks=(1, 1),
    ),
)  # fmt: skip
SIXTY_EIGHT = replace(TINY, generator=replace(TINY.generator, points="sixty-eight"))
CODEC = TrainConfig(
    stage="codec", model=TINY, steps=4, clips_per_batch=2, frames=2, warmup_steps=1, save_every=2, probe_every=4,
)  # fmt: skip
RENDERER = replace(CODEC, stage="renderer", frames=4)
LANDMARKS = TrainConfig(
    stage="landmarks", model=TINY, steps=4, clips_per_batch=3, frames=28, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=4, bfloat16=False, min_sync=0.0,
)  # fmt: skip
HEARING = replace(
    LANDMARKS, frames=16, model=replace(TINY, generator=replace(TINY.generator, features="whisper", context_frames=8))
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=FRAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, fit_once: Callable[..., tuple]) -> None:
    """Fit the basis of the same clips only once, calibrate on few frames, and write no curves."""
    monkeypatch.setattr("atldiff.training.landmarks_task.fit_basis", fit_once)
    monkeypatch.setattr("atldiff.training.codec_task.CALIBRATION_CLIPS", 8)
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    monkeypatch.setattr("atldiff.training.speech_states.VARIANTS", 2)


@pytest.fixture(scope="module")
def codec_run(prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a codec of four steps."""
    out = tmp_path_factory.mktemp("codec")
    patch = pytest.MonkeyPatch()
    patch.setattr("atldiff.training.codec_task.CALIBRATION_CLIPS", 8)
    patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    train_stage(CODEC, prepared.folder, out, workers=0)
    patch.undo()
    return out / "checkpoint"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def last_probe(out: Path) -> dict[str, Any]:
    return json.loads((out / "probe.jsonl").read_text().splitlines()[-1])


class TestBatches:
    def test_of_the_codec(self, prepared: Manifest) -> None:
        clips = [load_clip(prepared, entry, LIPS_OUTER) for entry in prepared.usable(Split.TRAIN)]
        source = CodecSet(clips, TINY.renderer, frames=2, seed=0)
        batch = source.batch(3, range(3))
        assert batch["pictures"].shape == (3, 2, 3, 80, 80)
        assert batch["mouth"].shape == (3, 2, 1, 80, 80)
        assert batch["pictures"].abs().max() <= 1
        assert batch["mouth"].float().mean() > 0.01
        again = source.batch(3, range(1, 2))
        assert torch.equal(again["pictures"], batch["pictures"][1:2])
        assert not torch.equal(source.batch(4, range(3))["pictures"], batch["pictures"])
        assert len(source.clip_names(batch)) == 3

    @pytest.mark.parametrize("resolution", [80, 96])
    def test_of_the_renderer(self, prepared: Manifest, resolution: int) -> None:
        clips = [load_clip(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
        source = LatentSet(clips, replace(TINY.renderer, resolution=resolution), frames=3, seed=0)
        batch = source.batch(0, range(4))
        shapes = {name: tuple(x.shape) for name, x in batch.items()}
        picture = (3, resolution, resolution)
        assert shapes["target"] == shapes["prior"] == (4, 3, *picture)
        assert shapes["hint"] == (4, 12, *picture)
        assert shapes["mask"] == shapes["mouth"] == (4, 1, *picture)
        assert shapes["noise"] == (4, 4, 1, resolution // 4, resolution // 4)
        assert shapes["level"] == shapes["guessed"] == shapes["clips"] == (4,)
        part = source.batch(0, range(2, 4))
        assert all(torch.equal(part[name], batch[name][2:]) for name in batch)
        # Colours, flips and jitter are shared: the hint's reference is the prior's own source.
        assert torch.isfinite(batch["hint"].float()).all()
        assert batch["hint"][:, :3].min() >= 0

    @pytest.mark.parametrize("model", [TINY, SIXTY_EIGHT], ids=["dense", "sixty-eight"])
    def test_of_the_generator(self, prepared: Manifest, model: DiffTalkerConfig) -> None:
        clips = [clip for entry in prepared.usable(Split.TRAIN) if (clip := load_speech(prepared, entry))]
        basis, scale, _ = fit_basis(clips, 6, np.ones(len(clips)))
        seen = [load_seen(prepared, clip) for clip in clips]
        config = model.generator
        source = CompletionSet(clips, seen, np.zeros((len(clips), 8)), basis, scale, config, frames=28, seed=0)
        batch = source.batch(0, range(64))
        assert batch["mel"].shape == (64, 112, 80)
        assert batch["seen"].shape == (64, 28, 3 * len(seen_indices(config)) + 3)
        assert batch["target"].shape == (64, 28, 6 if config.points == "dense" else 58)
        assert set(batch["filmed"].tolist()) == {0, 1, 2}
        assert not batch["heard"].all()
        assert batch["heard"][batch["filmed"] == 2].all()  # something is always known
        part = source.batch(0, range(5, 7))
        assert all(torch.equal(part[name], batch[name][5:7]) for name in batch)

    def test_what_is_seen_is_in_step_with_the_sound(self, prepared: Manifest) -> None:
        entry = prepared.usable(Split.TRAIN)[0]
        clip = load_speech(prepared, entry)
        assert clip is not None
        whole = load_seen(prepared, clip)
        for shift in (-2, 3):
            moved = in_step(clip, shift)
            seen = load_seen(prepared, moved)
            assert len(seen.moved) == len(moved)
            part = whole.moved[shift:] if shift > 0 else whole.moved[:shift]
            assert np.array_equal(seen.moved, part)
            assert np.allclose(seen.turned_deg[0], 0, atol=1e-3)


class TestCodec:
    def test_learns_and_calibrates(self, codec_run: Path) -> None:
        model = checkpoint.load_model(codec_run)
        assert isinstance(model, DiffTalkerModel)
        assert isinstance(model.renderer.codec, Codec)
        assert model.renderer.codec.calibrated
        assert {"psnr", "psnr_mouth"} <= last_probe(codec_run.parent).keys()

    def test_resumes_exactly(self, prepared: Manifest, codec_run: Path, tmp_path: Path) -> None:
        assert train_stage(CODEC, prepared.folder, tmp_path, workers=0, stop_after=2) == 2
        assert train_stage(CODEC, prepared.folder, tmp_path, workers=0) == 4
        one, two = weights(tmp_path / "checkpoint"), weights(codec_run)
        assert all(torch.equal(one[name], two[name]) for name in two)

    def test_loss_falls(self, prepared: Manifest, tmp_path: Path) -> None:
        told: list[float] = []
        longer = replace(CODEC, steps=40, probe_every=100, save_every=100, learning_rate=3e-3)
        train_stage(
            longer, prepared.folder, tmp_path, workers=0, progress=lambda step, total, loss: told.append(loss["loss"])
        )
        assert np.mean(told[-5:]) < 0.6 * np.mean(told[:5])

    def test_is_no_stage_of_other_methods(self) -> None:
        with pytest.raises(ValueError, match="stage: got 'codec', expected a method whose renderer has a codec"):
            TrainConfig(stage="codec", model=ATLConfig())


class TestRenderer:
    def test_needs_a_trained_codec(self, prepared: Manifest, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="got a codec that was never trained"):
            train_stage(RENDERER, prepared.folder, tmp_path, workers=0)

    def test_resumes_exactly_and_leaves_the_codec_alone(
        self, prepared: Manifest, codec_run: Path, tmp_path: Path
    ) -> None:
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(RENDERER, prepared.folder, out, start=codec_run, workers=0, stop_after=stop)
        one, two, before = (weights(f) for f in (tmp_path / "one/checkpoint", tmp_path / "two/checkpoint", codec_run))
        assert all(torch.equal(one[name], two[name]) for name in one)
        kept = [name for name in before if not name.startswith("renderer.denoiser.")]
        assert any(name.startswith("renderer.codec.") for name in kept)
        assert all(torch.equal(one[name], before[name]) for name in kept)  # bit for bit, though it ran in bfloat16
        changed = [name for name in before if name not in kept and not torch.equal(one[name], before[name])]
        assert any("branch" in name for name in changed)
        assert any("unet" in name for name in changed)
        assert {"mouth_ratio_fast", "mouth_ratio_balanced", "mouth_ratio_best"} <= last_probe(tmp_path / "one").keys()

    def test_another_denoiser_starts_afresh_over_the_same_codec(
        self, prepared: Manifest, codec_run: Path, tmp_path: Path
    ) -> None:
        wider = replace(TINY, renderer=replace(TINY.renderer, widths=(32, 32), codec=CodecConfig(channels=8)))
        train_stage(replace(RENDERER, model=wider), prepared.folder, tmp_path, start=codec_run, workers=0, stop_after=1)
        made = checkpoint.load_model(tmp_path / "checkpoint")
        assert isinstance(made, DiffTalkerModel)
        assert made.config.renderer.widths == (32, 32)
        assert made.config.renderer.codec == TINY.renderer.codec  # the trained one, whatever was asked for
        name = "renderer.codec.decoder.stem.weight"
        assert torch.equal(weights(tmp_path / "checkpoint")[name], weights(codec_run)[name])

    def test_a_window_that_is_not_prepared_is_refused(
        self, prepared: Manifest, codec_run: Path, tmp_path: Path
    ) -> None:
        outside = replace(TINY, renderer=replace(TINY.renderer, origin=(0, 0)))
        with pytest.raises(DataError, match="a window of side 80 at \\(0, 0\\), expected one inside template pixels"):
            train_stage(replace(RENDERER, model=outside), prepared.folder, tmp_path, start=codec_run, workers=0)


class TestLandmarks:
    @pytest.mark.parametrize("model", [TINY, SIXTY_EIGHT], ids=["dense", "sixty-eight"])
    def test_resumes_exactly(self, prepared: Manifest, tmp_path: Path, model: DiffTalkerConfig) -> None:
        config = replace(LANDMARKS, model=model)
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(config, prepared.folder, out, workers=0, stop_after=stop)
        one, two = weights(tmp_path / "one/checkpoint"), weights(tmp_path / "two/checkpoint")
        assert all(torch.equal(one[name], two[name]) for name in one)
        drives = [drive.replace(" ", "_") for drive in DRIVES]
        names = {f"{score}_{drive}" for score in ("lip_error", "opening_correlation") for drive in drives}
        assert names <= last_probe(tmp_path / "one").keys()

    def test_learns_what_opens_the_mouth(self, prepared: Manifest, tmp_path: Path) -> None:
        """Drawn people's lips follow the loudness of their sound."""
        wider = replace(TINY, generator=replace(TINY.generator, width=64, feed_forward=64, dropout=0.0))
        config = replace(LANDMARKS, model=wider, steps=120, clips_per_batch=8, probe_every=500, save_every=500)
        train_stage(config, prepared.folder, tmp_path, workers=0)
        generator = checkpoint.load_model(tmp_path / "checkpoint").generator
        assert isinstance(generator, CompletionGenerator)
        speaker = speaker_of(generator)
        entry = prepared.usable(Split.TRAIN)[0]
        clip = load_speech(prepared, entry)
        assert clip is not None
        said = completions(speaker, clip, load_seen(prepared, clip))
        scores = completion_scores(speaker, clip, said)
        assert scores is not None
        assert scores["sound"]["lip_error"] < 0.8
        assert scores["sound"]["opening_correlation"] > 0.6

    def test_starts_from_a_codec_run_and_keeps_the_renderer(
        self, prepared: Manifest, codec_run: Path, tmp_path: Path
    ) -> None:
        train_stage(LANDMARKS, prepared.folder, tmp_path, start=codec_run, workers=0, stop_after=1)
        made, before = weights(tmp_path / "checkpoint"), weights(codec_run)
        same = [name for name in made if name.startswith("renderer.")]
        assert all(torch.equal(made[name], before[name]) for name in same)
        assert made["generator.basis"].any()

    def test_alignment_wants_the_compact_generator(self, prepared: Manifest, codec_run: Path) -> None:
        with pytest.raises(CheckpointError, match="got method difftalker, expected atl-diff"):
            align_data(codec_run, prepared.folder)


class TestHearingStates:
    """The generator's stage where it hears a speech encoder."""

    WINDOW = 8 + 8 + 4

    def source(self, clips: list[ClipSpeech], spoken: list[Spoken] | None = None) -> SeenStatesSet:
        """Items whose states, sight and targets all are the number of their frame."""
        config = HEARING.model.generator
        heard = {}
        for clip in clips:
            first = 2 - 8 + 8 * np.arange(-(-(FRAMES + 3 + 6) // 8)) - 3.0  # three frames of silence before it
            moments = first[:, None] + np.arange(-8, 12)  # of the window
            states = np.repeat(moments[:, :, None], 2, axis=2).astype(np.float16)
            paced = [HeardClip(states * pace, (moments[:, 8:16] * pace).astype(np.float32)) for pace in (1.0, 1.1)]
            heard[clip.name] = paced
        for each in spoken or []:
            heard[each.name] = heard[clips[0].name]
        targets = [np.arange(len(clip), dtype=np.float32)[:, None] for clip in clips]
        states = StatesSet(
            clips, heard, np.zeros((len(clips), 8)), targets, frames=16, seed=0, spoken=spoken
        )  # fmt: skip
        made = SeenStatesSet(states, [clip.mel for clip in clips], [], config)
        made.seen = [np.repeat(target, 5, axis=1) for target in targets]
        return made

    def clips(self, prepared: Manifest) -> list[ClipSpeech]:
        return [clip for entry in prepared.usable(Split.TRAIN) if (clip := load_speech(prepared, entry))]

    def test_of_a_batch(self, prepared: Manifest) -> None:
        phonemes = (("a", 0.0, 0.4), ("p", 0.4, 0.48), ("a", 0.48, 0.8))
        spoken = [Spoken("spoken-x", np.zeros(12_800, np.float32), phonemes)]
        source = self.source(self.clips(prepared), spoken)
        batch = source.batch(0, range(150))
        assert batch["states"].shape == (150, 2, self.WINDOW, 2)
        assert batch["seen"].shape == (150, 2, self.WINDOW, 5)
        assert batch["target"].shape == (150, 16, 1)
        assert set(batch["filmed"].tolist()) == {FILMED, MADE_UP, MISSING}
        assert not batch["heard"].all()
        assert batch["heard"][batch["filmed"] == MISSING].all()  # something is always known
        synthetic = batch["synthetic"]
        assert 15 < synthetic.sum() < 50
        assert batch["heard"][synthetic].all()
        assert (batch["filmed"][synthetic] != FILMED).all()  # nobody was
        part = source.batch(0, range(5, 7))
        assert all(torch.equal(part[name], batch[name][5:7]) for name in batch)

    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_sound_sight_and_mouth_are_in_step(self, prepared: Manifest, shift: int) -> None:
        """Also where the clip's sound was moved, and at another pace."""
        clips = [in_step(clip, shift) for clip in self.clips(prepared)]
        batch = self.source(clips).batch(0, range(80))
        filmed, offset = batch["filmed"] == FILMED, min(shift, 0)
        last = len(clips[0]) - 1
        for row in filmed.nonzero()[:, 0].tolist():
            frame = (batch["states"][row, :, :, 0].float() + offset).clamp(0, last)  # of what is left of the clip
            noise = batch["seen"][row].mean(-1) - frame
            assert float(noise.abs().max()) < 1.2
            known = batch["valid"][row] > 0
            said = frame[:, 8:16].flatten()
            assert torch.allclose(batch["target"][row, known, 0], said[known], atol=0.05)
        assert filmed.sum() > 20

    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_an_item_around_a_frame_holds_it(self, prepared: Manifest, shift: int) -> None:
        clips = [in_step(clip, shift) for clip in self.clips(prepared)]
        source = self.source(clips)
        for frame in (0, 5, 17, len(clips[0]) - 9):
            item = source.around(0, frame, np.random.default_rng(frame))
            first = int(item["first"])
            assert np.allclose(item["target"][first : first + 9, 0], np.arange(frame, frame + 9), atol=0.01)
            assert item["valid"][first : first + 9].all()
            assert item["states"][:, 8:16, 0].ravel()[first] == frame - min(shift, 0)
            assert item["mel"].shape == (4 * (8 + 9 + 4), 80)

    def test_resumes_exactly(self, prepared: Manifest, tmp_path: Path) -> None:
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(HEARING, prepared.folder, out, workers=0, stop_after=stop)
        one, two = weights(tmp_path / "one/checkpoint"), weights(tmp_path / "two/checkpoint")
        assert all(torch.equal(one[name], two[name]) for name in one)
        told = last_probe(tmp_path / "one")
        drives = [drive.replace(" ", "_") for drive in DRIVES]
        names = {f"{score}_{drive}" for score in ("lip_error", "opening_correlation") for drive in drives}
        assert {*names, "agreement"} <= told.keys()
        gain = [told[name] for name in ("gain_filmed", "gain", "gain")]
        assert one["generator.gain"].tolist() == pytest.approx(gain, abs=1e-4)
        assert one["generator.state_mean"].any()
        model = checkpoint.load_model(tmp_path / "one/checkpoint")
        figures = {entry.record.name: network_figures(model, prepared, entry) for entry in prepared.usable(Split.TEST)}
        scored = next(iter(figures.values()))
        assert scored["completion"]["sound"] == pytest.approx(scored["generator"], rel=0.2)
        assert any(row["measure"].startswith("mouth landmark error") for row in network_table(figures))

    def test_starts_afresh_over_a_generator_of_another_form(
        self, prepared: Manifest, codec_run: Path, tmp_path: Path
    ) -> None:
        """And the renderer is carried along, as over one of the same form."""
        train_stage(HEARING, prepared.folder, tmp_path, start=codec_run, workers=0, stop_after=1)
        made, before = weights(tmp_path / "checkpoint"), weights(codec_run)
        assert checkpoint.load_model(tmp_path / "checkpoint").generator.config == HEARING.model.generator
        same = [name for name in made if name.startswith("renderer.")]
        assert same
        assert all(torch.equal(made[name], before[name]) for name in same)

    def test_points_are_completed_too(self, prepared: Manifest, tmp_path: Path) -> None:
        points = replace(HEARING.model, generator=replace(HEARING.model.generator, points="sixty-eight"))
        train_stage(replace(HEARING, model=points), prepared.folder, tmp_path, workers=0, stop_after=1)
        assert weights(tmp_path / "checkpoint")["generator.mouth.weight"].any()
