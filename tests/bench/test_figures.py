"""Statistics, sound, latency and the forms of a report, on made-up figures with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atldiff.bench import machine as machines
from atldiff.bench.compare import Spread, paired_ratios, spread
from atldiff.bench.latency import StreamDelays, measure_stream
from atldiff.bench.measure import Rendering
from atldiff.bench.plan import Plan, Variant
from atldiff.bench.process import ColdStart
from atldiff.bench.report import as_dict
from atldiff.bench.run import Measured, Results
from atldiff.bench.scaling import JobFigures, LengthFigures
from atldiff.bench.sound import lasting, speech_like
from atldiff.bench.tables import SECTIONS, cell, number, show
from atldiff.bench.throughput import Throughput
from atldiff.config import SampleConfig
from atldiff.machine import resident_peak_mb
from atldiff.runtime.choose import Compute
from atldiff.stages import STAGES


def fake_head(dtype: str = "torch.bfloat16") -> Any:
    compute = Compute("torch", "cpu", dtype.removeprefix("torch."))
    return SimpleNamespace(compute=compute, workers=SimpleNamespace(count=2))


def rendering(wall_s: float, **stages: float) -> Rendering:
    """100 frames of 4 s; stages in seconds."""
    return Rendering(100, 4.0, wall_s, wall_s / 4, 1.5 * wall_s, {**dict.fromkeys(STAGES, 0.0), **stages})


def measured(name: str, walls: tuple[float, ...], starts: int = 0) -> Measured:
    runs = [rendering(wall, denoise=wall, encode=1.0) for wall in walls]
    return Measured(
        Variant(name=name, size=512),
        fake_head(),
        SampleConfig(steps=2),
        gflop=8.0,
        renderings=runs,
        streams=[StreamDelays(580.0, 90.0, 100.0, 120.0, None)] * len(runs),
        throughputs=[Throughput(300.0, 600.0)] * len(runs),
        starts=[ColdStart(0.01, 1.0, 0.5, 3.0, 4.0, 100, 560.0, None)] * starts,
    )


@pytest.fixture
def machine() -> dict[str, Any]:
    return {
        "processor": "abacus", "cores": 2, "isa": ["avx2"], "onednn_max_isa": None, "threads": 2, "load_before": 0.1,
        "gpu": None, "system": "here", "python": "3.11", "torch": "2.9",
    }  # fmt: skip


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0, 3)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0, 2)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_ratios_are_of_pairs() -> None:
    # The third round was disturbed for both: the ratio of medians would say 1.5, every pair says 2 or less.
    assert paired_ratios([1.0, 2.0, 10.0], [2.0, 3.0, 20.0]) == Spread(2.0, 1.5, 2.0, 3)
    assert paired_ratios([2.0, 4.0], [1.0]) == Spread(0.5, 0.5, 0.5, 1)
    assert paired_ratios([0.0], [1.0]) is None
    assert paired_ratios([], []) is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_delays_of_a_stream_with_known_delays() -> None:
    clock = Clock()
    first_s, next_s = (0.100, 0.040, 0.060), 0.010

    def stream(packets):
        """Windows of two frames after packets 3, 5 and 7; the end releases another frame late."""
        for count, packet in enumerate(packets, 1):
            assert len(packet) == 320
            clock.work(0.001)
            if count in (3, 5, 7):
                clock.work(first_s[(count - 3) // 2])
                yield "first"
                clock.work(next_s)
                yield "second"
        clock.work(5.0)
        yield "last"

    delays = measure_stream(stream, np.zeros(8 * 320, np.float32), clock)
    assert delays.sound_ms == 60
    assert delays.first_ms == pytest.approx(101)
    assert delays.later_median_ms == pytest.approx(51)
    assert delays.later_worst_ms == pytest.approx(61)
    assert delays.whole_worst_ms == pytest.approx(71)


def test_delays_of_a_stream_that_waits_for_the_end() -> None:
    clock = Clock()

    def stream(packets):
        for _ in packets:
            clock.work(0.001)
        clock.work(0.5)
        yield "only"
        yield "another"

    delays = measure_stream(stream, np.zeros(400, np.float32), clock)
    assert delays == StreamDelays(25.0, pytest.approx(501), None, None, None)
    with pytest.raises(ValueError, match="no frame"):
        measure_stream(lambda packets: [frame for frame in packets if frame is None], np.zeros(400, np.float32))


def test_sound_is_repeated_and_cut() -> None:
    voice = np.arange(16_000, dtype=np.float32)
    assert (lasting(voice, 2.5) == np.concatenate([voice, voice, voice[:8000]])).all()
    assert (lasting(voice, 0.5) == voice[:8000]).all()


def test_made_up_speech_is_the_same_every_time_and_pauses() -> None:
    sound = speech_like(6.0)
    assert sound.shape == (96_000,)
    assert sound.dtype == np.float32
    assert (sound == speech_like(6.0)).all()
    level = np.sqrt(np.mean(sound.reshape(-1, 800) ** 2, axis=1))  # 50 ms
    assert 0.05 < level.max() < 0.9
    assert (level == 0).sum() >= 18  # two pauses of half a second
    assert np.abs(sound).max() <= 0.9


def test_instructions_by_their_names() -> None:
    assert machines.isa("fpu avx2 avx512f avx512_bf16 amx_tile amx_bf16") == ["avx2", "avx512", "bf16", "amx"]
    assert machines.isa("fpu sse2") == []


def test_peak_memory_in_megabytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  500000 kB\nVmRSS:\t 1 kB\n", encoding="ascii")
    assert resident_peak_mb(status) == 512.0
    assert resident_peak_mb(tmp_path / "none") is None


@pytest.fixture
def result(machine):
    plan = Plan(variants=(Variant(), Variant(name="dtype=float32")), portrait=Path("face.jpg"), runs=2)
    results = Results(
        variants=[
            measured("base", (2.0, 4.0), starts=1),
            measured("dtype=float32", (3.0, 5.0)),
        ],
        lengths=[LengthFigures(10.0, 250, 8.0, 0.8, 40.0, 600.0), LengthFigures(60.0, 1500, 43.0, 0.72, 41.0, None)],
        jobs=[JobFigures(2, "threads", 500, 8.0)],
    )
    return as_dict(plan, results, machine, "abc1234", "atldiff bench --runs 2")


def test_json_has_every_figure(result) -> None:
    result = json.loads(json.dumps(result, allow_nan=False))
    base, other = result["variants"]
    assert set(result) == {
        "version", "revision", "command", "interrupted", "machine", "portrait", "audio", "seconds", "runs",
        "variants", "ratios", "lengths", "jobs",
    }  # fmt: skip
    assert all(set(base[key]) == set(names) for key, (_, names) in SECTIONS.items())
    assert base["end_to_end"]["wall_s"] == {"median": 3.0, "low": 2.0, "high": 4.0, "runs": 2}
    assert base["end_to_end"]["rtf"]["median"] == 0.75
    assert base["end_to_end"]["fps"] == {"median": 37.5, "low": 25.0, "high": 50.0, "runs": 2}
    assert base["end_to_end"]["first_frame_ms"]["median"] == 750
    assert base["end_to_end"]["busy_cores"]["median"] == 1.5
    assert set(base["stages"]) == {"denoise", "encode"}  # the others took no time
    assert base["stages"]["denoise"]["ms_per_frame"]["median"] == 30
    assert base["stages"]["denoise"]["share"] == 0.75
    assert base["stream"]["whole_window_worst_ms"] is None
    assert base["denoiser"]["ratio"]["median"] == 0.5
    assert base["gflop_per_frame"] == 4.0  # 8 GFLOP a window and step, two steps, four new frames a window
    assert (base["window_ms"], base["hop_ms"], base["dtype"], base["size"]) == (160, 160, "bfloat16", 512)
    assert base["cold"]["peak_memory_mb"]["runs"] == 1
    assert other["cold"]["load_ms"] is None
    ratios = result["ratios"]["dtype=float32"]
    assert ratios["wall"] == {"median": 1.375, "low": 1.25, "high": 1.5, "runs": 2}
    assert ratios["load"] is None
    assert result["jobs"][0]["fps"] == 62.5
    assert result["jobs"][0]["real_time_videos"] == 2.5


def test_tables_show_what_was_measured(result, capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.commands.progress import console

    show(result, console())
    text = capsys.readouterr().out
    for part in ("abacus", "abc1234", "3.00 (2.00..4.00)", "30.0 (20.0..40.0)  75%", "1.38 (1.25..1.50)", "62.5"):
        assert part in text, part
    assert "GPU" not in text
    assert "Interrupted" not in text
    show({**result, "interrupted": True, "ratios": {}, "lengths": [], "jobs": []}, console())
    text = capsys.readouterr().out
    assert "Interrupted" in text
    assert "videos at once" not in text


def test_numbers_have_three_figures() -> None:
    assert [number(value) for value in (0.123, 9.994, 9.996, 99.94, 99.96, 1234.5)] == [
        "0.12", "9.99", "10.0", "99.9", "100", "1234",
    ]  # fmt: skip
    assert cell(None) == "-"
    assert cell({"median": 2.0, "low": 2.0, "high": 2.0, "runs": 1}) == "2.00"
