"""The benchmark on small models and on the command line; nothing here asserts a time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atldiff import cli
from atldiff.bench import process, run
from atldiff.bench.measure import render
from atldiff.bench.plan import Plan, Variant
from atldiff.bench.scaling import measure_threads
from atldiff.bench.throughput import count_gflop, measure_throughput, network_call
from atldiff.commands import bench
from atldiff.config import PRESETS, SampleConfig
from atldiff.errors import AtlDiffError
from atldiff.methods.difftalker.network import LatentRenderer
from atldiff.methods.lmdiff.network import TalkRenderer
from atldiff.pipeline import TalkingHead
from atldiff.runtime.choose import Compute, choose
from atldiff.stages import STAGES

torch.set_num_threads(1)

SHORT = SampleConfig(steps=1, window_frames=8, shared_frames=2)


@pytest.fixture(scope="module")
def head(random_any_model) -> TalkingHead:
    return TalkingHead(random_any_model, device="cpu", dtype="float32")


@pytest.fixture
def inputs(examples: Path, tmp_path: Path) -> tuple[Path, Path]:
    voice = run.speech_like(1.0)
    return examples / "portrait.jpg", run._write_sound(voice, 1.0, tmp_path / "sound.wav")


# Measuring


def test_one_video_books_every_stage(head, inputs, tmp_path) -> None:
    variant = Variant(preset="fast", size=128)
    measured = render(head, variant, *inputs, tmp_path / "out.mp4")
    assert measured.frames == 25
    assert measured.sound_s == 1.0
    assert 0 < measured.first_frame_s < measured.wall_s
    assert measured.real_time_factor == measured.wall_s
    assert set(measured.stages) == set(STAGES)
    for stage in ("audio", "detect", "features", "generator", "inputs", "denoise", "composite", "encode"):
        assert measured.stages[stage] > 0, stage


def test_network_call_is_one_evaluation_of_a_window(head) -> None:
    renderer = head.model.renderer
    side = renderer.config.side
    height = getattr(renderer.config, "height", side)
    picture = (
        (1, 4, 8, side // 4, side // 4)
        if isinstance(renderer, LatentRenderer | TalkRenderer)
        else (1, 3, 8, height, side)
    )
    with torch.inference_mode():
        assert network_call(renderer, SHORT)().shape == picture


def test_flops_grow_with_the_window(head) -> None:
    longer = SampleConfig(steps=1, window_frames=16, shared_frames=4)
    once, twice = (count_gflop(head.model.renderer, sampling) for sampling in (SHORT, longer))
    assert once > 0
    assert 1.8 < twice / once < 2.05  # what is done once a window does not grow


def test_flops_of_a_network_counted_by_hand(random_model) -> None:
    renderer = random_model.renderer
    unet, renderer.unet = renderer.unet, _OneConvolution(20, 3)
    try:
        pixels = renderer.config.side * renderer.config.height
        assert count_gflop(renderer, SHORT) == pytest.approx(2 * 9 * 20 * 3 * 8 * pixels / 1e9)
    finally:
        renderer.unet = unet


class _OneConvolution(torch.nn.Module):
    dtype, device, embedding_width = torch.float32, torch.device("cpu"), 32

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(channels_in, channels_out, (1, 3, 3), padding=(0, 1, 1), bias=False)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_throughput_uses_every_worker(head) -> None:
    threads: set[int] = set()
    workers = SimpleNamespace(count=head.workers.count, submit=head.workers.submit)

    def submit(call, *args):
        def noted():
            threads.add(threading.get_ident())
            return call(*args)

        return head.workers.submit(noted)

    workers.submit = submit
    copied = SimpleNamespace(painter=head.painter, compute=head.compute, workers=workers)
    found = measure_throughput(copied, SHORT, 0.5, seconds=0.01)  # pyright: ignore[reportArgumentType]
    assert found.denoiser_gflops > 0
    assert found.convolution_gflops > 0
    assert threads
    assert threading.get_ident() not in threads


def test_videos_at_once_in_threads(head, inputs, tmp_path) -> None:
    found = measure_threads(head, Variant(preset="fast", size=128), *inputs, 2, tmp_path)
    assert (found.jobs, found.kind, found.frames) == (2, "threads", 50)
    assert found.real_time_videos == pytest.approx(found.frames_per_second / 25)


# Order


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, random_model) -> list[str]:
    """Stand-ins for everything that takes time; the list says what was measured, of whom."""
    from atldiff.bench.latency import StreamDelays
    from atldiff.bench.measure import Rendering
    from atldiff.bench.process import ColdStart
    from atldiff.bench.throughput import Throughput

    calls: list[str] = []

    def opened(variant: Variant):
        calls.append(f"open {variant.name}")
        return SimpleNamespace(
            name=variant.name, sampling=PRESETS.__getitem__, workers=SimpleNamespace(count=2),
            compute=Compute("torch", "cpu", "float32"),
        )  # fmt: skip

    def rendered(head, variant, portrait, sound, output):
        calls.append(f"{'video' if sound.name == 'sound.wav' else 'warm'} {variant.name}")
        return Rendering(25, 1.0, 1.0, 0.5, 1.0, dict.fromkeys(STAGES, 0.1))

    def streamed(each, portrait, samples):
        calls.append(f"stream {each.variant.name}")
        return StreamDelays(600.0, 100.0, 90.0, 95.0, 120.0)

    def thrown(head, *rest):
        calls.append(f"denoiser {head.name}")
        return Throughput(1.0, 2.0)

    def started(variant, *rest):
        calls.append(f"cold {variant.name}")
        return ColdStart(0.01, 1.0, 0.5, 3.0, 4.0, 25, None, None)

    monkeypatch.setattr(Variant, "open", opened)
    monkeypatch.setattr(run, "render", rendered)
    monkeypatch.setattr(run, "_stream", streamed)
    monkeypatch.setattr(run, "measure_throughput", thrown)
    monkeypatch.setattr(run, "cold_start", started)
    monkeypatch.setattr(run.checkpoint, "load_model", lambda folder: random_model)
    return calls


def test_variants_take_turns(order, examples, tmp_path) -> None:
    variants = tuple(Variant(name=name) for name in "ABC")
    plan = Plan(variants=variants, portrait=examples / "portrait.jpg", seconds=1.0, runs=2)
    results, notes = run.Results(), []
    run.measure(plan, tmp_path, results, lambda done, total, what: notes.append((done, total)))
    kinds = ("video", "stream", "denoiser", "cold")
    assert order[:6] == [f"{what} {name}" for name in "ABC" for what in ("open", "warm")]
    assert order[6:] == [f"{kind} {name}" for _ in range(2) for kind in kinds for name in "ABC"]
    assert notes == [(done, plan.parts) for done in range(plan.parts)]
    assert [len(each.renderings) for each in results.variants] == [2, 2, 2]


def test_interrupted_it_shows_what_there_is(order, monkeypatch, capsys) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "cold_start", interrupted)
    assert cli.run(["bench", "--seconds", "1", "--json"]) == 130
    result = json.loads(capsys.readouterr().out)
    assert result["interrupted"] is True
    assert result["variants"][0]["end_to_end"]["wall_s"]["runs"] == 1
    assert result["variants"][0]["cold"]["file_s"] is None
    monkeypatch.setattr(run, "render", interrupted)
    assert cli.run(["bench", "--seconds", "1"]) == 130  # nothing was measured yet
    out, err = capsys.readouterr()
    assert out == ""
    assert "interrupted" in err


# The command line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--seconds", "0"], "seconds: got 0, expected 1 to 3600"),
        (["--seconds", "nan"], "seconds: got nan"),
        (["--runs", "0"], "runs: got 0, expected 1 to 100"),
        (["--size", "8"], "size: got 8, expected 64 to 8192"),
        (["--steps", "0"], "steps: got 0"),
        (["--lengths", "10", "0.5"], "lengths: got 0.5"),
        (["--jobs", "65"], "jobs: got 65"),
        (["--compare", "bakend=openvino"], "did you mean 'backend'?"),
        (["--compare", "dtype"], "expected dtype=VALUE"),
        (["--compare", "dtype=float16"], "compare: got dtype 'float16'"),
        (["--compare", "steps=many"], "expected a whole number"),
        (["--compare", "preset=fast,steps=99"], "steps: got 99"),
        (["--compare", "preset=balanced"], "which is what base is"),
        (["--compare", "dtype=float32", "--compare", "dtype=float32"], "which is what dtype=float32 is"),
        (["--compare", "weights=a,weights=b"], "checkpoint twice"),
        (["--compare", "weights=/nowhere/at/all"], "checkpoint /nowhere/at/all"),
        (["only.jpg"], "without a recording"),
        (["none.jpg", "none.wav"], "none.jpg"),
    ],
)
def test_bad_input_is_one_line(args: list[str], said: str, capsys: pytest.CaptureFixture[str], order) -> None:
    assert cli.run(["bench", "--seconds", "1", *args] if "--seconds" not in args else ["bench", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_a_variant_is_the_base_with_its_changes() -> None:
    base = Variant(preset="best", steps=3, size=512, dtype="bfloat16")
    assert bench.change(base, "dtype=float32") == Variant(
        name="dtype=float32", preset="best", steps=3, size=512, dtype="float32"
    )
    changed = bench.change(base, "weights=runs/a, preset=fast,size=256")
    assert (changed.checkpoint, changed.preset, changed.steps, changed.size) == ("runs/a", "fast", None, 256)
    assert bench.change(base, "method=atl-diff-paper").checkpoint == "atl-diff-paper"
    assert bench.change(base, "steps=4").steps == 4


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(AtlDiffError, match="checkpoint /nowhere"):
        process.cold_start(Variant(checkpoint="/nowhere"), tmp_path / "a", tmp_path / "b", tmp_path / "c.mp4")


SMALL = ["bench", "--seconds", "1", "--runs", "1", "--preset", "fast", "--size", "128", "--device", "cpu", "--json"]


def test_the_whole_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*SMALL, "--quiet"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    (base,) = result["variants"]
    assert base["dtype"] in ("bfloat16", "float32")
    assert base["backend"] == choose("auto", "cpu", "auto", graphs=True).backend
    assert base["stages"]["denoise"]["share"] > 0
    assert sum(of["share"] for of in base["stages"].values()) == pytest.approx(1)
    assert base["stream"]["sound_before_first_frame_ms"]["median"] <= 640
    assert base["cold"]["file_s"]["median"] > base["cold"]["first_frame_s"]["median"] > 0
    assert base["denoiser"]["ratio"]["median"] > 0
    assert result["portrait"].endswith("portrait.jpg")
    assert (result["ratios"], result["lengths"], result["jobs"]) == ({}, [], [])


@pytest.mark.slow
def test_the_rest_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*SMALL, "--compare", "size=96", "--lengths", "1", "2", "--jobs", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [each["size"] for each in result["variants"]] == [128, 96]
    assert result["ratios"]["size=96"]["wall"]["runs"] == 1
    assert [length["frames"] for length in result["lengths"]] == [25, 50]
    assert all(np.isfinite(length["steady_fps"]) for length in result["lengths"])
    assert [(job["kind"], job["frames"]) for job in result["jobs"]] == [("threads", 25), ("processes", 25)]
    assert "--compare size=96" in result["command"]
