"""The ablation on drawn people: its rows, its figures against direct ones, and that the same call goes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.ablation import run as ablation
from atldiff.ablation.arms import ARMS, PUBLISHED, SAMPLING_STEPS, check_base
from atldiff.ablation.measure import METRICS, figures, load_subject, real_figures, render, render_warped
from atldiff.ablation.run import Outcome, ablate, sheet_clips
from atldiff.ablation.sheet import CELL, GAP, HEADER
from atldiff.ablation.table import IDENTITY, REAL, WARPED, row_name
from atldiff.config import (
    TRAIN_PRESETS,
    IdentityDiffusionConfig,
    KFLMConfig,
    PublishedConfig,
    TrainConfig,
)
from atldiff.data.faces import load_faces
from atldiff.data.manifest import Manifest, Split
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import DataError, TrainingError
from atldiff.landmarks.detect import FaceTracker
from atldiff.methods.atl_published.inputs import NEEDED
from atldiff.methods.atl_published.network import PublishedRenderer
from atldiff.methods.atl_published.training.renderer_data import FacesSet, clip_windows
from atldiff.methods.models import build
from atldiff.video.window import STORED_FACE_SIDE

torch.set_num_threads(1)

FRAMES = 20
TINY = PublishedConfig(
    generator=KFLMConfig(
        features="log-mel", speech_model="", feature_width=16, feed_forward=16, fusion_width=8, mouth_fusion_width=8,
        kan_width=8, frames=25, hop_frames=20,
    ),
    renderer=IdentityDiffusionConfig(
        side=32, widths=(16, 32), blocks=(1, 1), identity_tokens=4, identity_width=8, clip_frames=8
    ),
)  # fmt: skip
BASE = TrainConfig(
    stage="renderer", model=TINY, steps=2, clips_per_batch=2, frames=2, warmup_steps=1, save_every=2, probe_every=4,
    bfloat16=False,
)  # fmt: skip
STEPS = (1, 2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=2, frames=FRAMES)


class BlindTracker:
    """Stands where `FaceTracker` stands and sees no face: it is quick, and a renderer's faces may be unseen."""

    def __enter__(self) -> BlindTracker:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def reset(self) -> None:
        pass

    def track(self, frame: np.ndarray) -> None:
        return None


def make_quick(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    patch.setattr("atldiff.methods.atl_published.training.renderer_task.PROBE_CLIPS", 1)
    patch.setattr(ablation, "FaceTracker", BlindTracker)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def call(manifest: Manifest, out: Path, base: TrainConfig = BASE, **settings) -> Outcome:
    return ablate(manifest.folder, out, base=base, sampling_steps=STEPS, workers=0, **settings)


@pytest.fixture(scope="module")
def done(prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished ablation: its folder and its document."""
    out = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        outcome = call(prepared, out, command="atldiff ablate made-up")
    assert outcome.document is not None
    return out, outcome.document


@pytest.fixture
def again(done: tuple[Path, dict], tmp_path: Path) -> Path:
    """A copy of the finished ablation."""
    return Path(shutil.copytree(done[0], tmp_path / "again"))


def times(out: Path, pattern: str) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob(pattern)}


def values(document: dict) -> list:
    return [clip["values"] for clip in document["clips"]]


def test_synthetic_clips_hold_whole_faces(prepared: Manifest) -> None:
    entry = prepared.usable(Split.TEST)[0]
    clip = load_faces(prepared, entry, NEEDED)
    pictures = clip.pictures(np.array([0, FRAMES - 1]))
    assert len(clip) == FRAMES == len(clip.offsets) - 1
    assert pictures.std(axis=(1, 2)).min() > 10  # a face, not a plain ground
    lips = clip.mouth.mean(axis=(0, 1))
    assert (abs(lips - STORED_FACE_SIDE / 2) < STORED_FACE_SIDE / 4).all()
    inside = pictures[0][tuple(clip.mouth[0].mean(axis=0).astype(int)[::-1])].astype(int)
    assert abs(inside - pictures[0][-8, -8]).max() > 20  # the lips are where the landmarks say


class TestArms:
    def test_the_four_are_prior_by_noise(self) -> None:
        configs = [arm.renderer(TINY.renderer) for arm in ARMS]
        assert {(c.prior, c.noise) for c in configs} == {
            (prior, noise) for prior in ("identity", "warped") for noise in ("guided", "uniform")
        }
        assert all(replace(c, prior="identity", noise="guided") == TINY.renderer for c in configs)
        assert PUBLISHED.training(BASE) == BASE

    def test_all_start_from_the_same_weights(self) -> None:
        weights = []
        for arm in ARMS:
            torch.manual_seed(BASE.seed)
            weights.append(build(arm.training(BASE).model).state_dict())
        for other in weights[1:]:
            assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())

    def test_all_see_the_same_clips_and_noise(self, prepared: Manifest) -> None:
        clips = [load_faces(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
        batches = [
            FacesSet(clips, arm.renderer(TINY.renderer), frames=2, seed=BASE.seed).batch(1, range(3)) for arm in ARMS
        ]
        for other in batches[1:]:
            assert all(torch.equal(batches[0][name], other[name]) for name in other if name != "prior")
        assert not torch.equal(batches[0]["prior"], batches[2]["prior"])
        assert torch.equal(batches[0]["prior"], batches[1]["prior"])

    def test_only_the_published_renderer_is_ablated(self) -> None:
        with pytest.raises(ValueError, match="got a run of atl-diff's renderer stage"):
            check_base(TRAIN_PRESETS["renderer"])
        with pytest.raises(ValueError, match="got a run of atl-diff-paper's landmarks stage"):
            check_base(TRAIN_PRESETS["paper-landmarks"])


class TestFigures:
    @pytest.fixture
    def subject(self, prepared: Manifest):
        return load_subject(prepared, prepared.usable(Split.TEST)[0], 32)

    def test_the_first_frame_is_the_portrait_and_the_next_the_answer(self, prepared: Manifest, subject) -> None:
        clip = load_faces(prepared, prepared.usable(Split.TEST)[0], NEEDED)
        small, _, _ = clip_windows(clip, np.arange(FRAMES), 32)
        assert np.array_equal(subject.portrait, small[0])
        assert np.array_equal(subject.real, small[1:])
        assert np.allclose(subject.targets, clip.points[1:] / 4)
        assert np.allclose(subject.source, clip.points[0] / 4)

    def test_perfect_frames(self, subject) -> None:
        nothing = [None] * len(subject.real)
        found = figures(subject, subject.real, nothing, nothing)
        assert found["psnr"] == float("inf")
        assert found["ssim"] == pytest.approx(1)
        assert found["mouth_error"] == 0
        assert found["flicker"] == real_figures(subject, nothing)["flicker"]
        assert found["flicker"]
        assert found["mouth_lmd"] is None
        assert found["face_found"] == 0

    def test_distances_are_of_the_frames_with_both_faces(self, subject) -> None:
        random = np.random.default_rng(0)
        face = (random.normal(size=(478, 3)) * 20 + 60).astype(np.float32)
        moved = face + np.array([3, 4, 0], np.float32)
        count = len(subject.real)
        real_seen = [face] * (count - 1) + [None]
        seen = [None] + [moved] * (count - 1)
        found = figures(subject, subject.real, seen, real_seen)
        assert found["lmd"] == pytest.approx(5, rel=1e-5)
        assert found["mouth_lmd"] == pytest.approx(5, rel=1e-5)
        assert found["mouth_lmd_aligned"] == pytest.approx(0, abs=1e-3)  # a shift is pose
        assert found["face_found"] == pytest.approx(100 * (count - 1) / count)

    def test_the_warp_moves_the_mouth(self, subject) -> None:
        torch.manual_seed(0)
        warped = render_warped(subject, PublishedRenderer(TINY.renderer))
        nothing = [None] * len(warped)
        error = figures(subject, warped, nothing, nothing)["mouth_error"]
        assert error is not None
        assert error < 0.9

    def test_rendering_depends_on_the_seed_and_not_on_the_other_steps(self, subject) -> None:
        torch.manual_seed(0)
        renderer = PublishedRenderer(TINY.renderer).eval()
        both, alone, other = (render(subject, renderer, *how) for how in (((1, 2), 0), ((2,), 0), ((2,), 1)))
        assert both[0].shape == subject.real.shape
        assert np.array_equal(both[1], alone[0])
        assert not np.array_equal(both[1], other[0])

    def test_short_clips_are_none(self, tmp_path: Path) -> None:
        manifest = make_synthetic(tmp_path, people=1, clips=1, frames=16)
        assert load_subject(manifest, manifest.entries[0], 32) is None


class TestDocument:
    def test_has_every_row_of_every_clip(self, done: tuple[Path, dict], prepared: Manifest) -> None:
        out, document = done
        wanted = [IDENTITY, WARPED, *(row_name(arm.name, steps) for arm in ARMS for steps in STEPS), REAL]
        assert [row["name"] for row in document["rows"]] == wanted
        assert [clip["name"] for clip in document["clips"]] == [e.record.name for e in prepared.usable(Split.TEST)]
        for clip in document["clips"]:
            assert list(clip["values"]) == wanted
            assert clip["frames"] == FRAMES - 1
            for row in wanted[:-1]:
                assert clip["values"][row].keys() == {metric.name for metric in METRICS}
                assert clip["values"][row]["psnr"] > 0
        assert json.loads((out / "ablation.json").read_text())["summary"] == document["summary"]
        assert document["config"]["training"]["steps"] == 2
        assert document["machine"]["cores"]

    def test_identity_held_still_equals_direct_computation(self, done: tuple[Path, dict], prepared: Manifest) -> None:
        squares = []
        for clip, entry in zip(done[1]["clips"], prepared.usable(Split.TEST), strict=True):
            small = clip_windows(load_faces(prepared, entry, NEEDED), np.arange(FRAMES), 32)[0].astype(float)
            square = ((small[1:] - small[0]) ** 2).mean()
            found = clip["values"][IDENTITY]
            assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / square))
            assert found["mouth_error"] == 1
            assert found["flicker"] == 0
            squares.append(found["psnr"])
        assert done[1]["summary"][IDENTITY]["psnr"]["mean"] == pytest.approx(np.mean(squares))

    def test_differences_are_from_the_published_arm_at_the_same_steps(self, done: tuple[Path, dict]) -> None:
        document = done[1]
        assert list(document["differences"]) == [row_name(arm.name, s) for arm in ARMS[1:] for s in STEPS]
        ours, published = row_name("warped-guided", 2), row_name(PUBLISHED.name, 2)
        change = [clip["values"][ours]["psnr"] - clip["values"][published]["psnr"] for clip in document["clips"]]
        found = document["differences"][ours]["psnr"]
        assert found["mean"] == pytest.approx(np.mean(change))
        assert found["p_holm"] >= found["p"] >= 0.5  # of two clips there is no telling

    def test_table_is_markdown_with_every_row(self, done: tuple[Path, dict]) -> None:
        text = (done[0] / "ablation.md").read_text(encoding="utf-8")
        means = text.split("\n\n")[1].splitlines()
        assert len(means) == 2 + 2 + len(ARMS) * len(STEPS) + 1
        assert len({line.count("|") for line in means}) == 1
        psnr = f"{done[1]['summary'][IDENTITY]['psnr']['mean']:.2f}"
        assert means[2].startswith(f"| unmoved identity held still, no network | — | {psnr} | ")
        assert " 1.000 " in means[2]
        assert "nan" not in text
        assert not re.search(r"\*\*[+-]", text)  # nor anything significant
        assert "](ablation.png)" in text
        assert "`atldiff ablate made-up`" in text

    def test_no_face_is_no_landmark_figure(self, done: tuple[Path, dict]) -> None:
        for clip in done[1]["clips"]:
            assert clip["values"][REAL]["face_found"] == 0
            assert clip["values"][IDENTITY]["mouth_lmd"] is None
        assert "mouth_lmd" not in done[1]["summary"][IDENTITY]
        assert done[1]["differences"][row_name("warped-guided", 2)]["mouth_lmd"]["mean"] is None

    def test_sheet_shows_a_row_a_person(self, done: tuple[Path, dict], prepared: Manifest) -> None:
        picture = cv2.imread(str(done[0] / "ablation.png"))
        assert picture is not None
        shown, columns = done[1]["sheet"], 3 + len(ARMS) + 1
        assert shown == [prepared.usable(Split.TEST)[0].record.name]  # its two clips are of one person
        assert picture.shape == (HEADER + CELL + GAP, columns * (CELL + GAP) + GAP, 3)
        real = load_subject(prepared, prepared.usable(Split.TEST)[0], 32).real  # type: ignore[union-attr]
        frame = done[1]["clips"][0]["shown_frame"]
        cell = cv2.resize(real[frame], (CELL, CELL), interpolation=cv2.INTER_CUBIC)[..., ::-1]
        left = GAP + (columns - 1) * (CELL + GAP)
        assert np.array_equal(picture[HEADER : HEADER + CELL, left : left + CELL], cell)

    def test_sheet_takes_people_evenly(self) -> None:
        clips = [{"person": f"p{i // 2}", "name": f"c{i}"} for i in range(24)]
        assert sheet_clips(clips) == ["c0", "c4", "c8", "c12", "c16", "c20"]
        assert sheet_clips(clips[:3]) == ["c0", "c2"]


class TestGoingOn:
    def test_a_finished_ablation_is_neither_trained_nor_measured_again(
        self, done: tuple[Path, dict], again: Path, prepared: Manifest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*arguments: object, **settings: object) -> None:
            raise AssertionError("done before")

        before = times(again, "arms/*/*.safetensors") | times(again, "measured/*")
        monkeypatch.setattr(ablation, "train_stage", never)
        monkeypatch.setattr(ablation, "_measure_clip", never)
        outcome = call(prepared, again)
        assert outcome.steps == dict.fromkeys((arm.name for arm in ARMS), 2)
        assert times(again, "arms/*/*.safetensors") | times(again, "measured/*") == before
        assert outcome.document is not None
        assert values(outcome.document) == values(done[1])

    def test_other_weights_are_measured_again(self, again: Path, prepared: Manifest) -> None:
        published, other = (again / "arms" / arm.name / "checkpoint" / "model.safetensors" for arm in ARMS[:2])
        shutil.copyfile(other, published)
        before = times(again, "measured/*.json")
        assert call(prepared, again).document is not None
        assert all(times(again, "measured/*.json")[name] > time for name, time in before.items())

    def test_another_number_format_is_measured_again(
        self, done: tuple[Path, dict], again: Path, prepared: Manifest
    ) -> None:
        outcome = call(prepared, again, dtype="bfloat16")
        assert outcome.document is not None
        assert outcome.document["config"]["dtype"] == "bfloat16"
        ours = row_name("warped-guided", 2)
        for clip, before in zip(outcome.document["clips"], done[1]["clips"], strict=True):
            assert clip["values"][IDENTITY] == before["values"][IDENTITY]
            assert clip["values"][ours] != before["values"][ours]
            assert clip["values"][ours]["psnr"] == pytest.approx(before["values"][ours]["psnr"], rel=0.01)

    def test_a_run_out_of_time_goes_on(self, done: tuple[Path, dict], prepared: Manifest, tmp_path: Path) -> None:
        first = call(prepared, tmp_path, minutes=1e-9)
        assert first.document is None
        assert first.steps == {arm.name: int(arm is PUBLISHED) for arm in ARMS}
        assert not (tmp_path / "ablation.md").exists()
        second = call(prepared, tmp_path)
        assert second.document is not None
        assert values(second.document) == values(done[1])

    def test_interrupted_measuring_keeps_what_is_measured(
        self, done: tuple[Path, dict], again: Path, prepared: Manifest
    ) -> None:
        shutil.rmtree(again / "measured")

        def interrupt(stage: str, count: int, total: int, note: str) -> None:
            if (stage, count) == ("measuring", 1):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            call(prepared, again, progress=interrupt)
        kept = times(again, "measured/*")
        assert len(kept) == 2
        outcome = call(prepared, again)
        assert outcome.document is not None
        assert kept.items() <= times(again, "measured/*").items()
        assert values(outcome.document) == values(done[1])

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"steps": 3}, r"another steps \(2, now 3\)"), ({"seed": 1}, r"another seed \(0, now 1\)")],
    )
    def test_another_budget_is_refused(self, again: Path, prepared: Manifest, change: dict, message: str) -> None:
        with pytest.raises(TrainingError, match=message):
            call(prepared, again, replace(BASE, **change))

    def test_other_data_are_refused(self, again: Path, tmp_path: Path) -> None:
        other = make_synthetic(tmp_path / "other", people=3, clips=1, frames=FRAMES)
        with pytest.raises(TrainingError, match="another data;"):
            call(other, again)

    def test_a_clip_that_changed_is_measured_again(self, again: Path, prepared: Manifest, tmp_path: Path) -> None:
        """Here to one that is too short, which is left out and named."""
        folder = Path(shutil.copytree(prepared.folder, tmp_path / "short"))
        short = make_synthetic(tmp_path / "made", people=4, clips=2, frames=12)
        name, other = (entry.record.name for entry in short.usable(Split.TEST))
        shutil.copyfile(short.clip_file(name), folder / "clips" / f"{name}.safetensors")
        before = times(again, "measured/*")
        outcome = call(Manifest.load(folder), again)
        assert outcome.document is not None
        assert [clip["clip"] for clip in outcome.document["skipped"]] == [name]
        assert [clip["name"] for clip in outcome.document["clips"]] == [other]
        assert times(again, "measured/*") == before
        assert "1 clip left out" in (again / "ablation.md").read_text(encoding="utf-8")

    def test_only_held_out_people_are_measured(self, prepared: Manifest, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="split: got 'train', expected val or test"):
            call(prepared, tmp_path, split="train")


class TestCommand:
    def test_synthetic(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def small(folder: Path) -> Manifest:
            return make_synthetic(folder, people=4, clips=1, frames=FRAMES)

        monkeypatch.setitem(TRAIN_PRESETS, "paper-renderer", BASE)
        monkeypatch.setattr("atldiff.training.run.make_synthetic", small)
        monkeypatch.setattr(ablation, "FaceTracker", FaceTracker)
        out = tmp_path / "run"
        code = cli.run(["ablate", "synthetic", "-o", str(out), "--steps", "1", "--workers", "0", "--device", "cpu",
                        "--seed", "3", "--json", "--quiet"])  # fmt: skip
        told = json.loads(capsys.readouterr().out)
        assert code == 0
        assert told["steps"] == dict.fromkeys((arm.name for arm in ARMS), 1)
        assert told["clips"] == 1
        assert len(told["found"]["rows"]) == 2 + len(ARMS) * len(SAMPLING_STEPS) + 1
        assert {path.name for path in out.glob("ablation.*")} == {"ablation.md", "ablation.json", "ablation.png"}
        document = json.loads((out / "ablation.json").read_text())
        assert 0 <= document["clips"][0]["values"][REAL]["face_found"] <= 100  # whatever it makes of a drawing
        assert document["command"].startswith("atldiff ablate synthetic -o ")
        assert document["seed"] == 3

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            (["nowhere"], "data nowhere: no manifest.jsonl"),
            (["synthetic", "--config", "renderer"], "ablation: got a run of atl-diff's renderer stage"),
            (["synthetic", "--config", "papr-renderer"], "preset: got 'papr-renderer'; did you mean 'paper-renderer'?"),
            (["synthetic", "--clips", "0"], "clips: got 0, expected at least 1"),
            (["synthetic", "--minutes", "0"], "minutes: got 0.0, expected more than 0"),
            (["synthetic", "--workers", "-1"], "workers: got -1, expected 0 or more"),
        ],
    )
    def test_errors_are_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], line: str
    ) -> None:
        assert cli.run(["ablate", *args, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_help_is_light(self) -> None:
        code = (
            "import sys\nfrom atldiff import cli\ncode = cli.run(['ablate', '--help'])\n"
            "sys.exit(code or any(name in sys.modules for name in ('torch', 'cv2', 'onnxruntime', 'scipy')))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "--sampling" not in done.stdout
        assert "held-out people" in done.stdout
