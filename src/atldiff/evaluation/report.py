"""The JSON of an evaluation: written, read and summed up."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.errors import DataError
from atldiff.evaluation.protocol import GROUND_TRUTH
from atldiff.evaluation.statistics import bootstrap_mean
from atldiff.files import write_text

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

FORMAT = 1
WORST_BY = "mouth_lmd_aligned"
"""The metric that orders clips; the first one with a direction where a result lacks it."""
ARROWS = {"higher": "↑", "lower": "↓", "closer": "≈", None: ""}
"""Where the better values of a metric are."""


def number(value: object) -> float | None:
    """Return a figure of a result as a float: infinities may be strings, None is not measurable."""
    if value is None:
        return None
    return float(value)  # type: ignore[arg-type] - checked by load


def save(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result as JSON; infinities become strings.

    Raises:
        ValueError: a value is not a number (NaN), or nothing that JSON has.
    """
    write_text(Path(path), json.dumps(_with_infinities_as_text(result), indent=1, allow_nan=False) + "\n")


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result.

    Raises:
        DataError: no such file, not JSON, not a result of `atldiff evaluate`, or one of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"evaluation {path}: no such file; expected one written by `atldiff evaluate --json`")
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"evaluation {path}: not JSON ({error}); run `atldiff evaluate --json` again") from None
    if not isinstance(result, dict) or "format" not in result or "protocol" not in result:
        raise DataError(f"evaluation {path}: not written by `atldiff evaluate --json` of this release: measure again")
    if result["format"] != FORMAT:
        raise DataError(
            f"evaluation {path}: got format {result['format']!r}, expected {FORMAT}: "
            "measure again, or read it with the release that wrote it"
        )
    try:
        _check(result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"evaluation {path}: damaged ({said}); run `atldiff evaluate --json` again") from None
    return result


def summarise(
    clips: Sequence[Mapping[str, Any]], rows: Sequence[str], metrics: Mapping[str, Any], seed: int
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Return the mean over clips and its 95 % interval, by row and metric; a metric without a value is left out."""
    summary: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for row in rows:
        intervals = {
            metric: bootstrap_mean([value_of(clip, row, metric) for clip in clips], seed) for metric in metrics
        }
        summary[row] = {metric: asdict(interval) for metric, interval in intervals.items() if interval.clips}
    return summary


def value_of(clip: Mapping[str, Any], row: str, metric: str) -> float | None:
    """Return a clip's figure; None where it was not measured."""
    return number(clip["values"].get(row, {}).get(metric))


def clip_notes(result: Mapping[str, Any], rows: Sequence[str]) -> list[str]:
    """Return the notes on clips, each after its clip's name; of those that are about a row only some rows' ones."""
    others = tuple(f"{row}: " for row in result["rows"] if row not in rows)
    notes = ((clip["name"], note) for clip in result["clips"] for note in clip.get("notes") or ())
    return [f"{name}: {note}" for name, note in notes if not others or not note.startswith(others)]


def badness(clip: Mapping[str, Any], row: str, metric: str, better: str | None) -> float | None:
    """Return a figure that grows as a clip gets worse: the value, its negative, or its distance to the ground truth."""
    value = value_of(clip, row, metric)
    if value is None or better is None:
        return None
    if better == "closer":
        real = value_of(clip, GROUND_TRUTH, metric)
        return None if real is None else 0.0 if value == real else abs(value - real)
    return value if better == "lower" else -value


def worst_metric(result: Mapping[str, Any]) -> str | None:
    """Return the metric whose worst clips are shown first; None where none has a direction."""
    measured = [
        name
        for name, about in result["metrics"].items()
        if any(badness(clip, result["main_row"], name, about.get("better")) is not None for clip in result["clips"])
    ]
    return WORST_BY if WORST_BY in measured else next(iter(measured), None)


def worst_first(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the clips, those that are worst in `worst_metric` first and those without its figure last."""
    name = worst_metric(result)
    if name is None:
        return list(result["clips"])
    better = result["metrics"][name]["better"]
    keyed = [(badness(clip, result["main_row"], name, better), clip) for clip in result["clips"]]
    measured = sorted(((key, clip) for key, clip in keyed if key is not None), key=lambda pair: -pair[0])
    return [clip for _, clip in measured] + [clip for key, clip in keyed if key is None]


def decimals(*values: float | None) -> int:
    """Return with how many decimals figures of the largest one's size are written: about four significant digits."""
    size = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=1.0)
    for places, at_least in enumerate((1000.0, 100.0, 1.0, 0.1)):
        if size >= at_least:
            return places
    return 2 if size == 0 else 4 if size >= 0.001 else 6


def figure(value: float | None, places: int | None = None) -> str:
    """Return a figure as text; a dash where there is none."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    places = decimals(value) if places is None else places
    rounded = round(value, places) or 0.0  # no minus zero
    return f"{rounded:,.{places}f}".replace("-", "−")


def decimals_of(result: Mapping[str, Any], metric: str) -> int:
    """Return with how many decimals a metric of a result is written: the first mean decides that is not zero.

    The main row's comes first.
    """
    row = result["main_row"]
    figures = {name: result["summary"].get(name, {}).get(metric) for name in (row, *result["rows"])}
    means = [number(found["mean"]) for found in figures.values() if found]
    means += [number(found[metric]["value"]) for found in result.get("sets", {}).values() if metric in found]
    return decimals(next((mean for mean in means if mean and math.isfinite(mean)), 0.0))


def interval_text(interval: Mapping[str, Any], places: int) -> str:
    """Return the bounds of an interval as text; nothing where there are none."""
    low, high = number(interval["low"]), number(interval["high"])
    return "" if low is None or high is None else f"[{figure(low, places)}, {figure(high, places)}]"


def set_text(measure: Mapping[str, Any]) -> str:
    """Return from how many frames a measure of whole sets was taken."""
    sizes = [figure(number(measure.get(side)), 0) for side in ("generated", "real")]
    return f"{sizes[0]} frames against {sizes[1]} real"


def skipped_together(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what was not measured, `labels`, `reason` and `enable`, in one entry where the cause is one."""
    together: dict[tuple[str, str], list[str]] = {}
    for item in result.get("skipped", []):
        label = result["metrics"].get(item["metric"], {}).get("label", item["metric"])
        together.setdefault((item["reason"], item.get("enable", "")), []).append(label)
    return [
        {"labels": ", ".join(labels), "reason": reason, "enable": enable}
        for (reason, enable), labels in together.items()
    ]


def p_text(p: float | None) -> str:
    """Return a p value as text."""
    if p is None:
        return "p not measurable"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def cost_label(name: str) -> str:
    """Return how a figure of `cost` is called."""
    known = {"rtf": "real-time factor", "fps": "frames a second", "peak_memory_mb": "peak memory, MB"}
    return known.get(name, name.replace("_", " "))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level of dotted names and texts."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _with_infinities_as_text(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {name: _with_infinities_as_text(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_infinities_as_text(item) for item in value]
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"got {constant}, expected a number, null, 'inf' or '-inf'")


def _check(result: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError, ValueError or AttributeError where what is read later is not as it should be."""
    rows = result["rows"]
    if result["main_row"] not in rows:
        raise ValueError(f"main_row: got {result['main_row']!r}, expected one of {', '.join(rows)}")
    for name, about in result["metrics"].items():
        if about.get("better") not in ("higher", "lower", "closer", None):
            raise ValueError(f"metric {name}: got better {about.get('better')!r}")
        if not isinstance(about["label"], str):
            raise TypeError(f"metric {name}: label is no text")
    names = [clip["name"] for clip in result["clips"]]
    if len(set(names)) < len(names):
        raise ValueError("two clips of one name")
    for clip in result["clips"]:
        for values in clip["values"].values():
            for value in values.values():
                _check_number(value)
        for rows_of_series in clip.get("series", {}).values():
            for values in rows_of_series.values():
                for value in values:
                    _check_number(value)
    for intervals in result["summary"].values():
        for interval in intervals.values():
            for bound in ("mean", "low", "high", "clips"):
                _check_number(interval[bound])
    for sets in result.get("sets", {}).values():
        for measure in sets.values():
            _check_number(measure["value"])
    for value in result.get("cost", {}).values():
        _check_number(value)
    for part in ("config", "machine"):
        result.get(part, {}).items()


def _check_number(value: object) -> None:
    if isinstance(value, bool) or not (value is None or isinstance(value, int | float) or value in ("inf", "-inf")):
        raise ValueError(f"got {value!r}, expected a number, null, 'inf' or '-inf'")
