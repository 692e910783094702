"""Two evaluations compared clip by clip: how large each difference is, and whether it is shown at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from atldiff.errors import DataError
from atldiff.evaluation.protocol import GROUND_TRUTH
from atldiff.evaluation.report import (
    badness,
    cost_label,
    decimals,
    figure,
    flatten,
    number,
    p_text,
    set_text,
    value_of,
)
from atldiff.evaluation.statistics import Difference, holm, mean, paired, smallest_p

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIGNIFICANT = 0.05
MIN_CLIPS = 6
"""Fewer clips have no pattern of signs rare enough for `SIGNIFICANT`."""
SHOWN_NAMES = 5
VERDICTS = ("better", "worse", "differs", "not shown", "too few clips")
"""What B is, against A, in a metric; `differs` where neither direction is the better one."""


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of two runs over the clips that have it in both."""

    metric: str
    label: str
    unit: str
    better: str | None
    """higher, lower or None; never closer: such a metric is compared by its distance to the ground truth."""
    a: float | None
    b: float | None
    """Means over the common clips."""
    difference: Difference
    """b - a."""
    adjusted: float | None
    """p, adjusted for the number of metrics by Holm's method."""
    verdict: str
    """One of `VERDICTS`."""


@dataclass(frozen=True, slots=True)
class SingleValue:
    """A figure of a whole run, which has neither clips nor an interval: FID, speed, memory."""

    label: str
    unit: str
    a: float | None
    b: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which two runs differ; a dash where a run has none."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations by one protocol, compared over their common clips."""

    protocol: str
    a: str
    b: str
    """The row that was compared, of each run."""
    a_run: str
    b_run: str
    """The same with checkpoint, commit and date."""
    clips: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    other_length: tuple[str, ...]
    """Common names whose clips have another number of frames in each run; left out."""
    metrics: tuple[MetricComparison, ...]
    unshared_metrics: tuple[str, ...]
    """Labels of metrics that only one of the runs has."""
    singles: tuple[SingleValue, ...]
    settings: tuple[Setting, ...]
    seed: int


def compare(a: Mapping[str, Any], b: Mapping[str, Any], row: str | None = None, seed: int = 0) -> Comparison:
    """Compare the main rows of two results, or a row by its name, over the clips that both have.

    Raises:
        DataError: two protocols, an unknown row, or no clip in common.
    """
    if a["protocol"] != b["protocol"]:
        raise DataError(
            f"protocol: got {a['protocol']!r} and {b['protocol']!r}, expected the same: "
            "figures of two protocols cannot be compared; measure both with one release of atldiff"
        )
    rows = tuple(row or result["main_row"] for result in (a, b))
    for name, result in zip(rows, (a, b), strict=True):
        if name not in result["rows"]:
            raise DataError(f"row: got {name!r}, expected one of {', '.join(result['rows'])}")
    of_a, of_b = ({clip["name"]: clip for clip in result["clips"]} for result in (a, b))
    shared = [name for name in of_a if name in of_b]
    other_length = [name for name in shared if of_a[name].get("frames") != of_b[name].get("frames")]
    common = [name for name in shared if name not in other_length]
    if not common:
        raise DataError("clips: got none in common, expected two evaluations of the same clips at the same length")
    pairs = [(of_a[name], of_b[name]) for name in common]
    measured = [
        _compare_metric(name, a["metrics"][name], pairs, rows, seed) for name in a["metrics"] if name in b["metrics"]
    ]
    singles = tuple(_singles(a, b, rows))
    unshared = [m for result, other in ((a, b), (b, a)) for m in result["metrics"] if m not in other["metrics"]]
    return Comparison(
        protocol=a["protocol"],
        a=rows[0],
        b=rows[1],
        a_run=_run_text(a, rows[0]),
        b_run=_run_text(b, rows[1]),
        clips=tuple(common),
        only_a=tuple(name for name in of_a if name not in of_b),
        only_b=tuple(name for name in of_b if name not in of_a),
        other_length=tuple(other_length),
        metrics=tuple(_with_verdicts([metric for metric in measured if metric.difference.clips])),
        unshared_metrics=tuple({**a["metrics"], **b["metrics"]}[name]["label"] for name in unshared),
        singles=singles,
        settings=tuple(_settings(a, b)),
        seed=seed,
    )


def sentences(comparison: Comparison) -> list[str]:
    """Return what a comparison shows, one sentence a metric, and last what it does not show."""
    lines, unclear, few = [], [], []
    for metric in comparison.metrics:
        if metric.verdict == "too few clips":
            few.append(metric.label)
            continue
        if metric.verdict == "not shown" or metric.difference.mean is None:
            unclear.append(metric.label)
            continue
        change, unit = metric.difference, f" {metric.unit}" if metric.unit else ""
        by = (change.mean, change.low, change.high)
        if metric.verdict == "differs":
            said = f"B differs from A in {metric.label} by"
        else:
            said = f"{'B' if metric.verdict == 'better' else 'A'} is better in {metric.label} by"
            if (change.mean or 0) < 0:
                by = tuple(None if value is None else -value for value in (change.mean, change.high, change.low))
        size, low, high = (figure(value, decimals(*by)) for value in by)
        lines.append(f"{said} {size}{unit} [{low}, {high}], {change.clips} clips, {p_text(metric.adjusted)}.")
    if unclear:
        lines.append(f"No difference is shown in {'; '.join(unclear)}.")
    if few:
        lines.append(f"Too few clips to show any difference in {'; '.join(few)}.")
    return lines


def notes(comparison: Comparison) -> list[str]:
    """Return how many clips are compared and what is left out, a sentence each."""
    lines = [f"{len(comparison.clips)} clips are common to both."]
    for names, why in (
        (comparison.only_a, "only in A"),
        (comparison.only_b, "only in B"),
        (comparison.other_length, "of another length in each"),
    ):
        if names:
            shown = ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
            lines.append(f"Left out, {why}: {len(names)} ({shown}).")
    if comparison.unshared_metrics:
        lines.append(f"Measured in one run only: {'; '.join(comparison.unshared_metrics)}.")
    return lines


def _compare_metric(
    name: str, about: Mapping[str, Any], pairs: Sequence[tuple[Any, Any]], rows: tuple[str, ...], seed: int
) -> MetricComparison:
    better, label = about.get("better"), about["label"]
    if better == "closer":
        sides = [[badness(pair[side], rows[side], name, better) for pair in pairs] for side in (0, 1)]
        better, label = "lower", f"{label} (distance to {GROUND_TRUTH})"
    else:
        sides = [[value_of(pair[side], rows[side], name) for pair in pairs] for side in (0, 1)]
    both = [(x, y) for x, y in zip(*sides, strict=True) if x is not None and y is not None]
    of_a, of_b = [x for x, _ in both], [y for _, y in both]
    return MetricComparison(
        metric=name,
        label=label,
        unit=about.get("unit") or "",
        better=better,
        a=mean(of_a),
        b=mean(of_b),
        difference=paired(of_a, of_b, seed),
        adjusted=None,
        verdict="not shown",
    )


def _with_verdicts(metrics: Sequence[MetricComparison]) -> list[MetricComparison]:
    tested = [metric for metric in metrics if metric.difference.p is not None]
    ps = [metric.difference.p or 0.0 for metric in tested]
    adjusted = dict(zip((metric.metric for metric in tested), holm(ps), strict=True))
    judged = []
    for metric in metrics:
        p = adjusted.get(metric.metric)
        if metric.difference.clips < MIN_CLIPS or (p is not None and _hopeless(metric, tested, ps)):
            verdict = "too few clips"
        elif p is None or p >= SIGNIFICANT:
            verdict = "not shown"
        elif metric.better is None:
            verdict = "differs"
        else:
            verdict = "better" if ((metric.difference.mean or 0) > 0) == (metric.better == "higher") else "worse"
        judged.append(replace(metric, adjusted=p, verdict=verdict))
    return judged


def _hopeless(metric: MetricComparison, tested: Sequence[MetricComparison], ps: Sequence[float]) -> bool:
    """Return whether even the clearest outcome on a metric's clips would not have been significant."""
    index = tested.index(metric)
    clearest = [*ps[:index], smallest_p(metric.difference.clips), *ps[index + 1 :]]
    return holm(clearest)[index] >= SIGNIFICANT


def _singles(a: Mapping[str, Any], b: Mapping[str, Any], rows: tuple[str, ...]) -> list[SingleValue]:
    singles = []
    sets = [result.get("sets", {}).get(row, {}) for result, row in zip((a, b), rows, strict=True)]
    for name in {**sets[0], **sets[1]}:
        about = a["metrics"].get(name) or b["metrics"].get(name) or {}
        found = [side.get(name, {}) for side in sets]
        sizes = "; ".join(f"{run}: {set_text(side)}" for run, side in zip("AB", found, strict=True))
        x, y = (number(side.get("value")) for side in found)
        note = f"no interval; {sizes}"
        singles.append(SingleValue(about.get("label", name.upper()), about.get("unit") or "", x, y, note))
    costs = [result.get("cost", {}) for result in (a, b)]
    for name in {**costs[0], **costs[1]}:
        x, y = (number(side.get(name)) for side in costs)
        singles.append(SingleValue(cost_label(name), "", x, y, "no interval"))
    return singles


def _run_text(result: Mapping[str, Any], row: str) -> str:
    commit = f"commit {result['commit']}" if result.get("commit") else None
    checkpoint = result.get("config", {}).get("checkpoint")
    parts = [row, checkpoint if checkpoint != row else None, commit, (result.get("created") or "")[:10]]
    return ", ".join(str(part) for part in parts if part)


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Setting]:
    sides = []
    for result in (a, b):
        top = {name: result.get(name) for name in ("atldiff", "commit", "seed")}
        machine = {f"machine.{name}": value for name, value in flatten(result.get("machine", {})).items()}
        sides.append({**flatten(result.get("config", {})), **flatten(top), **machine})
    names = {**sides[0], **sides[1]}
    return [Setting(n, sides[0].get(n, "–"), sides[1].get(n, "–")) for n in names if sides[0].get(n) != sides[1].get(n)]
