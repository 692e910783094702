from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from atldiff.errors import DataError
from atldiff.evaluation import report
from atldiff.evaluation.comparison import compare, notes, sentences
from atldiff.evaluation.report import GROUND_TRUTH, decimals, figure, load, save, summarise, value_of

Make = Callable[..., dict[str, Any]]
MAIN = "atl-diff"


def set_values(result: dict[str, Any], metric: str, values: list[Any], row: str = MAIN) -> None:
    for clip, value in zip(result["clips"], values, strict=True):
        clip["values"][row][metric] = value


class TestFiles:
    def test_what_was_written_is_read(self, make_result: Make, tmp_path: Path) -> None:
        result = make_result(clips=3)
        result["clips"][0]["values"][MAIN]["psnr"] = math.inf
        result["clips"][1]["values"][MAIN]["psnr"] = None
        save(result, tmp_path / "a.json")
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
        read = load(tmp_path / "a.json")
        assert read["clips"][0]["values"][MAIN]["psnr"] == "inf"
        assert [value_of(clip, MAIN, "psnr") for clip in read["clips"][:2]] == [math.inf, None]
        read["clips"][0]["values"][MAIN]["psnr"] = math.inf
        assert read["metrics"] == result["metrics"]
        assert read["clips"] == result["clips"]

    def test_nan_is_never_written(self, make_result: Make, tmp_path: Path) -> None:
        result = make_result(clips=2)
        result["cost"]["rtf"] = math.nan
        with pytest.raises(ValueError, match="JSON"):
            save(result, tmp_path / "a.json")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "no such file"),
            ("{", "not JSON"),
            ("\x00\xff", "not JSON"),
            ("[1]", "not written by"),
            ('{"checkpoint": "atl-diff", "table": []}', "not written by"),
            ('{"format": 2, "protocol": "atldiff-1"}', "got format 2, expected 1"),
            ('{"format": 1, "protocol": "atldiff-1"}', "no field 'rows'"),
            ('{"format": 1, "protocol": "p", "rows": ["a"], "main_row": "b"}', "expected one of a"),
        ],
    )
    def test_what_is_not_an_evaluation(self, text: str | None, said: str, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        if text is not None:
            path.write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=said) as error:
            load(path)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda result: result["clips"][0]["values"][MAIN].update(ssim="high"),
            lambda result: result["clips"][0]["values"][MAIN].update(ssim=True),
            lambda result: result["clips"][0]["values"].update({MAIN: None}),
            lambda result: result["clips"].append(result["clips"][0]),
            lambda result: result["metrics"]["ssim"].update(better="up"),
            lambda result: result["metrics"]["ssim"].pop("label"),
            lambda result: result["summary"][MAIN]["ssim"].pop("low"),
            lambda result: result["sets"][MAIN]["fid"].update(value=[1]),
            lambda result: result.update(config=[1]),
            lambda result: result["clips"][0]["series"]["lip_opening"].update({MAIN: ["x"]}),
        ],
    )
    def test_damage_is_one_line(self, damage: Callable, make_result: Make, tmp_path: Path) -> None:
        save(make_result(clips=2), tmp_path / "a.json")
        result = json.loads((tmp_path / "a.json").read_text())
        damage(result)
        (tmp_path / "a.json").write_text(json.dumps(result))
        with pytest.raises(DataError, match="damaged") as error:
            load(tmp_path / "a.json")
        assert "\n" not in str(error.value)

    def test_nan_is_never_read(self, make_result: Make, tmp_path: Path) -> None:
        result = make_result(clips=2)
        result["clips"][0]["values"][MAIN]["ssim"] = math.nan
        (tmp_path / "a.json").write_text(json.dumps(result))
        with pytest.raises(DataError, match="NaN"):
            load(tmp_path / "a.json")


def test_summary(make_result: Make) -> None:
    result = make_result(clips=4)
    set_values(result, "ssim", [0.5, None, 0.7, None])
    set_values(result, "jitter", [None] * 4)
    set_values(result, "psnr", [30.0, "inf", 31.0, 32.0])
    summary = summarise(result["clips"], [MAIN], result["metrics"], 0)[MAIN]
    assert summary["ssim"]["mean"] == pytest.approx(0.6)
    assert summary["ssim"]["clips"] == 2
    assert summary["psnr"] == {"mean": math.inf, "low": None, "high": None, "clips": 4}
    assert "jitter" not in summary
    assert "fid" not in summary
    bounds = summary["csim"]
    assert bounds["low"] < bounds["mean"] < bounds["high"]


class TestCompare:
    def by_metric(self, comparison) -> dict[str, Any]:
        return {metric.metric: metric for metric in comparison.metrics}

    def test_a_run_against_itself(self, make_result: Make) -> None:
        comparison = compare(make_result(), make_result())
        assert {metric.verdict for metric in comparison.metrics} == {"not shown"}
        assert all(metric.difference.mean == 0 for metric in comparison.metrics)
        assert comparison.settings == ()
        assert sentences(comparison)[0].startswith("No difference is shown in PSNR; SSIM;")

    def test_a_clear_loss(self, make_result: Make) -> None:
        a, b = make_result(), make_result(seed=1, shift=0.6)
        verdicts = {name: metric.verdict for name, metric in self.by_metric(compare(a, b)).items()}
        assert verdicts["psnr"] == verdicts["lpips"] == verdicts["mouth_lmd_aligned"] == "worse"
        assert verdicts["blink_rate"] == "differs"
        back = {name: metric.verdict for name, metric in self.by_metric(compare(b, a)).items()}
        assert back["psnr"] == back["lpips"] == "better"

    def test_a_sentence_names_who_is_ahead_by_a_positive_figure(self, make_result: Make) -> None:
        a, b = make_result(), make_result(seed=1, shift=0.6)
        for one, other, ahead in ((a, b, "A"), (b, a, "B")):
            lines = sentences(compare(one, other))
            for label in ("PSNR", "LPIPS"):
                line = next(line for line in lines if f" {label} " in line)
                assert line.startswith(f"{ahead} is better in {label} by ")
                assert "−" not in line
                assert line.endswith(("24 clips, p < 0.001.", "24 clips, p = 0.001.", "24 clips, p = 0.002."))
        line = next(line for line in sentences(compare(b, a)) if "blinks" in line)
        assert line.startswith("B differs from A in blinks by −")

    def test_worked_figures(self, make_result: Make) -> None:
        a, b = make_result(clips=8, metrics=2), make_result(clips=8, metrics=2)
        set_values(b, "ssim", [clip["values"][MAIN]["ssim"] + 0.01 * (1 + i) for i, clip in enumerate(a["clips"])])
        ssim = self.by_metric(compare(a, b))["ssim"]
        assert ssim.difference.mean == pytest.approx(0.045)
        assert ssim.difference.p == pytest.approx(2 / 2**8)
        assert ssim.adjusted == pytest.approx(2 * 2 / 2**8)  # two metrics, this one first
        assert ssim.verdict == "better"
        assert ssim.b - ssim.a == pytest.approx(0.045)

    def test_closer_is_measured_from_each_clips_ground_truth(self, make_result: Make) -> None:
        a, b = make_result(clips=8), make_result(clips=8)
        for result, away in ((a, 5.0), (b, -1.0)):
            set_values(result, "sharpness", [100.0 + i for i in range(8)], GROUND_TRUTH)
            set_values(result, "sharpness", [100.0 + i + away + 0.1 * i for i in range(8)])
        metric = self.by_metric(compare(a, b))["sharpness"]
        assert metric.a == pytest.approx(5.35)
        assert metric.b == pytest.approx(0.65)
        assert metric.better == "lower"
        assert metric.label == "sharpness (distance to ground truth)"
        only = {name: about for name, about in a["metrics"].items() if name == "sharpness"}
        assert self.by_metric(compare({**a, "metrics": only}, b))["sharpness"].verdict == "better"

    def test_too_few_clips(self, make_result: Make) -> None:
        clear = compare(make_result(clips=5), make_result(clips=5, shift=3))
        assert {metric.verdict for metric in clear.metrics} == {"too few clips"}
        assert sentences(clear)[-1].startswith("Too few clips to show any difference in PSNR")
        # Seven clips could show one metric's difference, not one of eleven's.
        many = compare(make_result(clips=7), make_result(clips=7))
        assert {metric.verdict for metric in many.metrics} == {"too few clips"}
        one = compare(make_result(clips=7, metrics=1), make_result(clips=7, metrics=1))
        assert {metric.verdict for metric in one.metrics} == {"not shown"}

    def test_common_clips_only(self, make_result: Make) -> None:
        a, b = make_result(clips=10), make_result(clips=10)
        dropped = a["clips"].pop(0)["name"]
        other = b["clips"].pop()["name"]
        b["clips"][3]["frames"] = 50
        b["clips"].reverse()
        comparison = compare(a, b)
        assert (comparison.only_a, comparison.only_b) == ((other,), (dropped,))
        assert comparison.other_length == (b["clips"][-4]["name"],)
        assert len(comparison.clips) == 7
        assert all(metric.difference.mean == 0 for metric in comparison.metrics)
        assert notes(comparison) == [
            "7 clips are common to both.",
            f"Left out, only in A: 1 ({other}).",
            f"Left out, only in B: 1 ({dropped}).",
            f"Left out, of another length in each: 1 ({comparison.other_length[0]}).",
        ]

    def test_infinities_and_missing_values(self, make_result: Make) -> None:
        a, b = make_result(clips=8), make_result(clips=8)
        set_values(b, "psnr", ["inf"] * 8)
        set_values(b, "ssim", [None] * 8)
        del b["metrics"]["jitter"]
        metrics = self.by_metric(comparison := compare(a, b))
        assert (metrics["psnr"].b, metrics["psnr"].adjusted, metrics["psnr"].verdict) == (math.inf, None, "not shown")
        assert "ssim" not in metrics
        assert comparison.unshared_metrics == ("jitter",)
        assert "PSNR" in sentences(comparison)[0]

    def test_measures_of_sets_have_no_interval(self, make_result: Make) -> None:
        comparison = compare(make_result(clips=2), make_result(clips=2, shift=1))
        fid = comparison.singles[0]
        assert (fid.label, fid.a, fid.b) == ("FID", 12.3, 13.3)
        assert fid.note == "no interval; A: 1,800 frames against 1,800 real; B: 1,800 frames against 1,800 real"
        assert [single.label for single in comparison.singles[1:3]] == ["real-time factor", "frames a second"]

    def test_settings_that_differ(self, make_result: Make) -> None:
        a, b = make_result(clips=2), make_result(clips=2)
        b["config"]["sampling"]["preset"] = "best"
        b["config"]["limit"] = 3
        b["machine"]["threads"] = 8
        settings = [(setting.name, setting.a, setting.b) for setting in compare(a, b).settings]
        assert settings == [
            ("sampling.preset", "balanced", "best"),
            ("machine.threads", "2", "8"),
            ("limit", "–", "3"),
        ]

    def test_a_row_by_name(self, make_result: Make) -> None:
        a = make_result()
        comparison = compare(a, make_result(), row="static photo")
        assert (comparison.a, comparison.b) == ("static photo", "static photo")
        assert comparison.singles[0].label == "real-time factor"
        with pytest.raises(DataError, match="expected one of ground truth, static photo"):
            compare(a, a, row="static")

    def test_two_rows_of_other_names(self, make_result: Make) -> None:
        rows = [GROUND_TRUTH, "static photo", "warped prior", "atl-diff best"]
        comparison = compare(make_result(), make_result(rows=rows))
        assert (comparison.a, comparison.b) == (MAIN, "atl-diff best")

    def test_refusals(self, make_result: Make) -> None:
        a, b = make_result(clips=3), make_result(clips=3)
        with pytest.raises(DataError, match="measure both with one release"):
            compare(a, {**b, "protocol": "atldiff-2"})
        with pytest.raises(DataError, match="none in common"):
            compare(a, {**b, "clips": []})

    def test_the_seed_decides(self, make_result: Make) -> None:
        a, b = make_result(), make_result(seed=1, shift=0.1)
        assert compare(a, b, seed=1) == compare(a, b, seed=1)
        assert compare(a, b, seed=1) != compare(a, b, seed=2)

    def test_it_can_be_written(self, make_result: Make, tmp_path: Path) -> None:
        b = make_result(clips=8)
        set_values(b, "psnr", ["inf"] * 8)
        save(asdict(compare(make_result(clips=8), b)), tmp_path / "c.json")
        assert json.loads((tmp_path / "c.json").read_text())["metrics"][0]["b"] == "inf"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31.1588, "31.16"),
        (0.93121, "0.931"),
        (0.06123, "0.0612"),
        (211.94, "211.9"),
        (9812345, "9,812,345"),
        (0, "0.00"),
        (-0.25, "−0.250"),
        (None, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_figures_have_no_minus_zero() -> None:
    assert figure(-0.0001, 2) == "0.00"
    assert decimals(None, math.inf) == decimals(1.0)


def test_the_main_row_decides_the_decimals(make_result: Make) -> None:
    result = make_result(clips=3)
    result["summary"]["static photo"]["ssim"]["mean"] = 5000.0
    assert report.decimals_of(result, "ssim") == 3
    assert report.decimals_of(result, "fid") == 2


def test_the_worst_clips_come_first(make_result: Make) -> None:
    result = make_result(clips=4)
    names = [clip["name"] for clip in result["clips"]]
    set_values(result, "mouth_lmd_aligned", [2.0, None, 4.0, 3.0])
    assert [clip["name"] for clip in report.worst_first(result)] == [names[2], names[3], names[0], names[1]]
    del result["metrics"]["mouth_lmd_aligned"]
    set_values(result, "psnr", [30.0, "inf", 31.0, 29.0])
    assert report.worst_metric(result) == "psnr"
    assert [clip["name"] for clip in report.worst_first(result)] == [names[3], names[0], names[2], names[1]]
    only = {"fid": result["metrics"]["fid"], "blink_rate": result["metrics"]["blink_rate"]}
    assert report.worst_metric({**result, "metrics": only}) is None
    closer = {"sharpness": result["metrics"]["sharpness"]}
    set_values(result, "sharpness", [100.0] * 4, GROUND_TRUTH)
    set_values(result, "sharpness", [101.0, 90.0, 99.5, 105.0])
    worst = report.worst_first({**result, "metrics": closer})
    assert [clip["name"] for clip in worst] == [names[1], names[3], names[0], names[2]]
