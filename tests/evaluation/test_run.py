from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.checkpoint import load_model, save_model
from atldiff.commands.report import show_evaluation
from atldiff.config import SampleConfig
from atldiff.data.clip import prepare_clip
from atldiff.data.manifest import Manifest, ManifestEntry, Split
from atldiff.errors import CheckpointError, DataError
from atldiff.evaluation import report, run
from atldiff.evaluation.pictures import Backbones
from atldiff.evaluation.protocol import GROUND_TRUTH, METRICS, PER_CLIP, PROTOCOL, REAL_LANDMARKS, STATIC_PHOTO
from atldiff.evaluation.result import assemble
from atldiff.evaluation.run import Pair, find_pairs, measure_checkpoint, measure_folders, split_entries
from atldiff.landmarks.detect import FaceTracker
from atldiff.types import Controls

torch.set_num_threads(1)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestPairs:
    def test_by_name_inside_the_folders(self, tmp_path: Path) -> None:
        made, real = tmp_path / "made", tmp_path / "real"
        touch(made / "a.mp4", made / "s1/b.avi", made / "lone.mp4", made / "notes.txt", made / ".a.partial.mp4")
        touch(real / "a.mkv", real / "s1/b.mp4", real / "b.mp4")
        pairs, lone = find_pairs(made, real)
        assert pairs == [
            Pair("a", made / "a.mp4", real / "a.mkv"),
            Pair("s1/b", made / "s1/b.avi", real / "s1/b.mp4"),
        ]
        assert lone == [{"clip": "lone", "reason": f"no video of this name in {real}"}]

    def test_two_files_are_a_pair_whatever_their_names(self, tmp_path: Path) -> None:
        touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
        pairs, lone = find_pairs(tmp_path / "a.mp4", tmp_path / "b.mp4")
        assert (pairs, lone) == ([Pair("a", tmp_path / "a.mp4", tmp_path / "b.mp4")], [])

    def test_what_cannot_be_paired(self, tmp_path: Path) -> None:
        made, real = tmp_path / "made", tmp_path / "real"
        touch(made / "a.mp4", real / "b.mp4")
        with pytest.raises(DataError, match="none of its 1 videos has the name of one of the 1"):
            find_pairs(made, real)
        with pytest.raises(DataError, match="got a file and a folder"):
            find_pairs(made / "a.mp4", real)
        with pytest.raises(DataError, match="real .*none: no such file"):
            find_pairs(made, tmp_path / "none")
        touch(made / "a.mov")
        with pytest.raises(DataError, match=r"a\.mov and a\.mp4 share a name"):
            find_pairs(made, real)


@pytest.fixture(scope="module")
def folders(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders: `same` is the real video itself, `broken` is none, `lone` has no partner."""
    made, real = (tmp_path_factory.mktemp(name) for name in ("made", "real"))
    for folder in (made, real):
        shutil.copy(talking, folder / "same.mp4")
    shutil.copy(talking, real / "broken.mp4")
    (made / "broken.mp4").write_bytes(b"not a video")
    shutil.copy(talking, made / "lone.mp4")
    return made, real


class TestFolders:
    @pytest.fixture(scope="class")
    def result(self, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
        """The whole way, by the command line."""
        made, real = folders
        out = tmp_path_factory.mktemp("out")
        command = ["evaluate", "--generated", str(made), "--real", str(real), "--json", str(out / "e.json")]
        assert cli.run([*command, "--html", str(out / "e.html"), "--name", "ours", "--seed", "3"]) == 0
        assert sorted(path.name for path in out.iterdir()) == ["e.html", "e.json"]
        page = (out / "e.html").read_text(encoding="utf-8")
        assert "data:video/mp4" in page
        assert "data:image/jpeg" in page
        assert cli.run(["report", str(out / "e.json")]) == 0
        return report.load(out / "e.json")

    def test_the_document(self, result: dict) -> None:
        assert (result["protocol"], result["seed"], result["main_row"]) == (PROTOCOL, 3, "ours")
        assert result["rows"] == [GROUND_TRUTH, STATIC_PHOTO, "ours"]
        assert list(result["metrics"]) == [metric.name for metric in METRICS]
        assert [clip["name"] for clip in result["clips"]] == ["same"]
        assert result["command"].startswith("atldiff evaluate --generated")
        assert result["config"]["mode"] == "videos"
        assert {item["clip"] for item in result["failed"]} == {"broken", "lone"}

    def test_a_video_against_itself(self, result: dict) -> None:
        for row in ("ours", GROUND_TRUTH):
            values = result["clips"][0]["values"][row]
            assert values["psnr"] == values["psnr_mouth"] == "inf"
            assert values["ssim"] == pytest.approx(1, abs=2e-5)
            for name in ("lmd", "mouth_lmd", "mouth_lmd_aligned", "lvd", "seam_window", "seam_box", "lip_lag_ms"):
                assert values[name] == 0, name
            assert values["lip_correlation"] == pytest.approx(1)
            assert values["lip_amplitude"] == pytest.approx(1)
            assert values["mouth_sharpness"] == pytest.approx(1)
            assert values["face_found"] == 100
            assert values["fps"] == 25

    def test_the_photo_does_not_move(self, result: dict) -> None:
        values = result["clips"][0]["values"][STATIC_PHOTO]
        assert values["flicker"] == values["jitter"] == values["blink_rate"] == 0
        assert values["head_range_deg"] == pytest.approx(0, abs=1e-6)
        assert values["lip_correlation"] == values["audio_lip_correlation"] == 0
        assert values["lip_lag_ms"] is None
        assert values["lmd"] > 0
        assert 10 < values["psnr"] < 60

    def test_every_measure_has_a_figure_or_a_reason(self, result: dict) -> None:
        measured = set(result["summary"]["ours"]) | set(result["sets"].get("ours", {}))
        skipped = {item["metric"]: item for item in result["skipped"]}
        assert measured | skipped.keys() == {metric.name for metric in METRICS}
        assert not measured & skipped.keys()
        assert skipped["lpips"]["enable"].endswith("--lpips alexnet-owt-7be5be79.pth")
        for name in ("mouth_lpips", "mouth_realism"):
            assert skipped[name]["enable"] == skipped["lpips"]["enable"]
        assert "--syncnet ByteDance/LatentSync" in skipped["lse_d"]["enable"]
        assert "--seed 3" in skipped["fid"]["enable"]  # the very command, and one option more
        assert skipped["rtf"]["enable"].startswith("atldiff evaluate --checkpoint")

    def test_cross_driven_videos_are_not_compared_by_moments(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        made, real = folders
        out = tmp_path / "e.json"
        arguments = ["--generated", str(made / "same.mp4"), "--real", str(real / "same.mp4"), "--driving", "cross"]
        assert cli.run(["evaluate", *arguments, "--json", str(out)]) == 0
        result = report.load(out)
        values = result["clips"][0]["values"][result["main_row"]]
        for metric in PER_CLIP:
            if metric.paired:
                assert values[metric.name] is None, metric.name
        assert values["audio_lip_correlation"] is not None
        assert {"cross-driven: no real frame of the same moment"} <= {item["reason"] for item in result["skipped"]}

    def test_with_networks(self, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
        """Random weights, of course: what they see of a video against itself does not depend on them."""
        torch.manual_seed(0)
        made, real = folders

        class Colours(torch.nn.Module):
            num_features = 3

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                assert images.dtype == torch.uint8
                assert images.shape[1:] == (3, 256, 256)
                return images.float().mean(dim=(2, 3)) / 255

        class Corner:
            def embed(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
                assert np.isfinite(points).all()
                value = frame[:40, :40].astype(np.float32).mean(axis=(0, 1))
                return value / np.linalg.norm(value)

        alexnet = LpipsAlexNet().eval()
        for layer in alexnet.linear:  # the published ones are never negative
            torch.nn.init.uniform_(layer.weight)  # type: ignore[attr-defined]
        backbones = Backbones(lpips=alexnet, inception=Colours(), embedder=Corner())  # type: ignore[arg-type]
        pair = Pair("same", made / "same.mp4", real / "same.mp4")
        measured = measure_folders([pair], backbones, name="ours")
        values = measured.clips[0]["values"]
        assert values["ours"]["lpips"] == 0
        assert values[STATIC_PHOTO]["lpips"] > 0
        assert values["ours"]["identity"] == pytest.approx(1, abs=1e-3)
        result = assemble(measured, backbones, config={}, command="", seed=0, paired=True, cost={})
        show_evaluation(result)
        assert "FID of ours: 8 frames against 8 real" in capsys.readouterr().out
        assert result["sets"]["ours"]["fid"] == {"value": pytest.approx(0, abs=1e-4), "generated": 8, "real": 8}
        assert {item["metric"] for item in result["skipped"]} == {"lse_d", "lse_c", "lse_offset_ms", "rtf"} | (
            {"silent_mouth", "teeth_slide", "cavity_jitter", "seam_brightness"} - result["summary"]["ours"].keys()
        )
        assert values["ours"]["mouth_lpips"] == 0
        assert values[STATIC_PHOTO]["mouth_lpips"] > 0

    def test_an_interruption_keeps_what_was_measured(
        self, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, real = (tmp_path / folder.name for folder in folders)
        for folder, source in zip((made, real), folders, strict=True):
            folder.mkdir()
            for name in ("a.mp4", "b.mp4", "c.mp4"):
                shutil.copy(source / "same.mp4", folder / name)
        look = run.watch

        def interrupted(path: Path, tracker: FaceTracker):
            if path.name == "b.mp4":
                raise KeyboardInterrupt
            return look(path, tracker)

        monkeypatch.setattr(run, "watch", interrupted)
        command = ["evaluate", "--generated", str(made), "--real", str(real), "--json", str(tmp_path / "e.json")]
        assert cli.run(command) == 130
        result = report.load(tmp_path / "e.json")
        assert [clip["name"] for clip in result["clips"]] == ["a"]
        assert result["failed"] == [{"clip": "b", "reason": "interrupted: this and the clips after it, 2 in all"}]
        (made / "a.mp4").unlink()
        (tmp_path / "e.json").unlink()
        assert cli.run(command) == 130  # before anything was measured: there is nothing to report
        assert not (tmp_path / "e.json").exists()

    def test_nothing_measurable_is_an_error(self, folders: tuple[Path, Path], capsys) -> None:
        made, real = folders
        assert cli.run(["evaluate", "--generated", str(made / "broken.mp4"), "--real", str(real / "same.mp4")]) == 2
        assert "none of 1 clips could be measured: video" in capsys.readouterr().err


@pytest.fixture(scope="module")
def prepared(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prepared folder with one clip in its test split, and the folder of the raw video."""
    source, data = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prepared")
    (source / "corpus").mkdir()
    shutil.copy(talking, source / "corpus" / "a.mp4")
    (data / "clips").mkdir()
    with FaceTracker() as tracker:
        record = prepare_clip(source / "corpus" / "a.mp4", "corpus/a.mp4", "a", data / "clips", tracker)
    assert not record.reason
    Manifest((ManifestEntry(record, "corpus/a", Split.TEST),), data).save()
    return data, source


@pytest.fixture(scope="module")
def checkpoint(random_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(random_model, folder)
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Have no process of its own make a video; the list says what weights it was asked to make one with."""
    asked: list[list[str]] = []

    def cold_start(weights: Sequence[str], clip: Path, preset: str, steps: int) -> dict[str, float]:
        asked.append([*weights])
        return {"cold_s": 1.5}

    monkeypatch.setattr("atldiff.evaluation.cost.cold_start", cold_start)
    return asked


class TestCheckpoint:
    def test_the_whole_way(
        self, prepared: tuple[Path, Path], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, source = prepared
        command = ["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--source", str(source)]
        kept = tmp_path / "videos"
        assert cli.run([*command, "--json", str(tmp_path / "e.json"), "--videos", str(kept), "--preset", "fast"]) == 0
        assert sorted(path.name for path in kept.iterdir()) == ["a.mp4", "a.real-landmarks.mp4"]
        result = report.load(tmp_path / "e.json")
        assert result["rows"] == [GROUND_TRUTH, STATIC_PHOTO, checkpoint.name, REAL_LANDMARKS]
        assert (result["config"]["steps"], result["config"]["split"]) == (1, "test")
        values = result["clips"][0]["values"]
        assert result["clips"][0]["group"] == "corpus"
        assert values[checkpoint.name]["rtf"] > 0
        assert values[REAL_LANDMARKS]["rtf"] is None
        # Driven by the real landmarks the head is where the real one is; driven by sound it wanders by itself.
        assert values[REAL_LANDMARKS]["lmd"] < values[checkpoint.name]["lmd"]
        assert values[REAL_LANDMARKS]["lmd"] < 2.5
        assert values[GROUND_TRUTH]["psnr"] == "inf"
        assert result["cost"]["parameters"] > 1000
        assert result["cost"]["peak_memory_mb"] > 100
        assert {row["measure"] for row in result["networks"]} >= {"opening_correlation, median clip"}
        assert "real-time factor" in capsys.readouterr().out

    def test_stages_of_two_checkpoints(
        self, prepared: tuple[Path, Path], checkpoint: Path, random_paper_model, tmp_path: Path, started
    ) -> None:
        data, source = prepared
        save_model(random_paper_model, tmp_path / "paper")
        command = ["evaluate", "--generator", str(tmp_path / "paper"), "--renderer", str(checkpoint)]
        command += ["--data", str(data), "--source", str(source), "--json", str(tmp_path / "e.json")]
        assert cli.run([*command, "--preset", "fast"]) == 0
        result = report.load(tmp_path / "e.json")
        name = f"paper + {checkpoint.name}"
        assert name in result["rows"]
        assert result["config"]["generator"].endswith("paper")
        wanted = sum(p.numel() for p in random_paper_model.generator.parameters())
        wanted += sum(p.numel() for p in load_model(checkpoint).renderer.parameters())
        assert result["cost"]["parameters"] == wanted
        assert result["cost"]["cold_s"] == 1.5
        assert started == [
            ["--weights", "atl-diff", "--generator", str(tmp_path / "paper"), "--renderer", str(checkpoint)]
        ]

    @pytest.mark.usefixtures("started")
    def test_co_driven_the_head_is_where_the_real_one_is(
        self, prepared: tuple[Path, Path], checkpoint: Path, tmp_path: Path
    ) -> None:
        data, source = prepared
        lmd = []
        for driven in ([], ["--co-driven"]):
            out = tmp_path / f"{len(driven)}.json"
            command = ["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--source", str(source)]
            # The real clip was made with seed 0: another one wanders elsewhere.
            assert cli.run([*command, "--json", str(out), "--preset", "fast", "--seed", "5", *driven]) == 0
            result = report.load(out)
            assert result["config"]["co_driven"] is bool(driven)
            lmd.append(result["clips"][0]["values"][checkpoint.name]["lmd"])
        assert lmd[1] < 0.97 * lmd[0]  # the mouth of random weights is as far off in both

    def test_a_cold_start_that_fails_costs_no_figures(
        self, prepared: tuple[Path, Path], checkpoint: Path, tmp_path: Path, monkeypatch, capsys
    ) -> None:
        data, source = prepared

        def refuse(*arguments) -> dict:
            raise DataError("cost: `atldiff generate` failed")

        monkeypatch.setattr("atldiff.evaluation.cost.cold_start", refuse)
        command = ["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--source", str(source)]
        assert cli.run([*command, "--json", str(tmp_path / "e.json"), "--preset", "fast"]) == 0
        assert set(report.load(tmp_path / "e.json")["cost"]) == {"parameters"}
        assert "warning: cost: `atldiff generate` failed" in capsys.readouterr().err

    def test_bad_input(self, prepared: tuple[Path, Path], checkpoint: Path, tmp_path: Path) -> None:
        data, source = prepared
        arguments = dict(name="ours", controls=Controls(), sampling=SampleConfig())
        with pytest.raises(DataError, match="split: got 'exam', expected train, val or test"):
            measure_checkpoint(checkpoint, data, "exam", source, tmp_path, Backbones(), **arguments)
        with pytest.raises(DataError, match="the split 'val' has no usable clip"):
            measure_checkpoint(checkpoint, data, "val", source, tmp_path, Backbones(), **arguments)
        with pytest.raises(DataError, match=r"corpus/a\.mp4 is not there \(1 of 1 clips are missing\)"):
            measure_checkpoint(checkpoint, data, "test", tmp_path, tmp_path, Backbones(), **arguments)
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            measure_checkpoint(tmp_path, data, "test", source, tmp_path, Backbones(), **arguments)
        with pytest.raises(DataError, match=r"no readable source\.json"):
            cli_error(["evaluate", "--checkpoint", str(checkpoint), "--data", str(data)])

    def test_a_few_clips_evenly_spread(self, prepared: tuple[Path, Path]) -> None:
        entry = Manifest.load(prepared[0]).entries[0]
        many = Manifest((entry,) * 9, prepared[0])
        assert len(split_entries(many, "test")) == len(split_entries(many, "test", 20)) == 9
        assert len(split_entries(many, "test", 4)) == 4


def cli_error(arguments: list[str]) -> None:
    """Run a sub-command without the command line's own turning of errors into lines."""
    from importlib import import_module

    import_module(f"atldiff.commands.{arguments[0]}").run(arguments[1:])


def test_options_that_contradict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, line in (
        (["--generated", "a"], "got --generated without --real"),
        (["--real", "a"], "got --real without --generated"),
        (["--driving", "cross"], "driving: got cross for a checkpoint"),
        (["--generated", "a", "--real", "b", "--co-driven"], "co_driven: got it with --generated"),
        (["--clips", "0"], "clips: got 0, expected at least 1"),
        (["--seed", "-1"], "seed: got -1"),
        (["--html", str(tmp_path / "none" / "e.html")], "does not exist"),
        (["--videos", __file__], "got a file, expected a folder"),
        (["--generated", str(tmp_path), "--real", str(tmp_path), "--lpips", "none.pth"], "none.pth"),
    ):
        assert cli.run(["evaluate", *arguments]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
