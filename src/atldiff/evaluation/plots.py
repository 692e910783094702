"""Plots as SVG texts without any colour of their own: the classes are styled by page.css, in light and dark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from atldiff.evaluation.report import figure
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 560
"""Units of the drawing; the page scales it."""
LETTER = 6.6
"""Mean width of a letter at the plots' font size."""
RIGHT = 34
TOP = 8


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One line of an interval plot."""

    name: str
    mean: float | None
    low: float | None
    high: float | None
    points: tuple[float, ...]
    """The clips' values."""
    anchor: bool
    """Drawn muted: a row to compare with."""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One line of a forest plot, in standard deviations of the clips' differences."""

    name: str
    mean: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear map of values to the x of a drawing, or to its y with `start` below `end` swapped."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers from `low` to `high`, one, two or five times a power of ten apart."""
    if not low < high:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def interval_plot(label: str, unit: str, rows: Sequence[IntervalRow]) -> str:
    """Return one metric over rows: a dot and a whisker for mean and interval, a thin dot for each clip."""
    finite = [
        v for row in rows for v in (*row.points, row.mean, row.low, row.high) if v is not None and math.isfinite(v)
    ]
    if not finite:
        return ""
    left = 14 + LETTER * max(len(_short(row.name)) for row in rows)
    height, pitch = TOP + 30 * len(rows) + 40, 30
    axis = _axis(min(finite), max(finite), left, WIDTH - RIGHT)
    parts = [*_x_axis(axis, TOP + pitch * len(rows), unit)]
    for index, row in enumerate(rows):
        y = TOP + pitch * (index + 0.5)
        kind = "anchor" if row.anchor else "main"
        parts.append(
            f'<g class="{kind}"><text class="name" x="{left - 12:.1f}" y="{y + 4:.1f}">{_named(row.name)}</text>'
        )
        # The golden ratio spreads the clips over the row's height; one path, because a clip each would be too many.
        points = "".join(
            f"M{axis(value):.1f} {y + ((number * 0.618034) % 1 - 0.5) * 18:.1f}h0"
            for number, value in enumerate(row.points)
            if math.isfinite(value)
        )
        if points:
            parts.append(f'<path class="clips" d="{points}"/>')
        if row.mean is not None and not math.isfinite(row.mean):
            parts.append(f'<text class="endless" x="{WIDTH - RIGHT:.1f}" y="{y + 4:.1f}">{figure(row.mean)}</text>')
        elif row.mean is not None:
            parts.append(_whisker(axis, row.mean, row.low, row.high, y))
        parts.append("</g>")
    return _svg(height, f"{label}: mean and 95 % interval of each row, a thin dot a clip", parts)


def time_plot(label: str, unit: str, real: Sequence[float | None], generated: Sequence[float | None]) -> str:
    """Return a measure over the frames of a clip, 25 a second: the real one against the generated one."""
    finite = [value for value in (*real, *generated) if value is not None and math.isfinite(value)]
    frames = max(len(real), len(generated))
    if len(finite) < 2 or frames < 2:
        return ""
    height, bottom, left = 190, 142, 58.0
    x = _Axis(0, (frames - 1) / FPS, left, WIDTH - RIGHT)
    low, high = min(finite), max(finite)
    room = (high - low or abs(high) or 1) * 0.06
    y = _Axis(low - room, high + room, bottom, TOP + 22)
    parts = [*_x_axis(x, bottom, "s", TOP + 22)]
    marks = ticks(y.low, y.high, 3)
    places = _places(marks)
    for mark in marks:
        parts.append(f'<path class="grid" d="M{left:.1f} {y(mark):.1f}H{x.end:.1f}"/>')
        parts.append(f'<text class="tick side" x="{left - 6:.1f}" y="{y(mark) + 4:.1f}">{figure(mark, places)}</text>')
    for kind, values in (("real", real), ("generated", generated)):
        parts.append(f'<path class="line {kind}" d="{_line(values, x, y)}"/>')
    at = left
    for kind in ("real", "generated"):
        parts.append(f'<path class="line {kind}" d="M{at:.1f} 14h22"/>')
        parts.append(f'<text class="legend" x="{at + 28:.1f}" y="18">{kind}</text>')
        at += 50 + LETTER * len(kind)
    measured = escape(f"{label}, {unit}" if unit else label)
    parts.append(f'<text class="legend end" x="{x.end:.1f}" y="18">{measured}</text>')
    return _svg(height, f"{label} over time, real and generated", parts)


def forest_plot(rows: Sequence[ForestRow], left_side: str, right_side: str) -> str:
    """Return standardised differences with their intervals around a line of no difference."""
    if not rows:
        return ""
    pitch = 26
    left = 14 + LETTER * max(len(_short(row.name, 46)) for row in rows)
    width = left + 380 + RIGHT
    bottom = TOP + 22 + pitch * len(rows)
    reach = max(0.5, *(abs(value) for row in rows for value in (row.low, row.mean, row.high)))
    axis = _axis(-reach, reach, left, width - RIGHT)
    parts = [
        f'<text class="legend" x="{left:.1f}" y="16">← {escape(left_side)}</text>',
        f'<text class="legend end" x="{width - RIGHT:.1f}" y="16">{escape(right_side)} →</text>',
        *_x_axis(axis, bottom, "standard deviations", TOP + 18),
        f'<path class="zero" d="M{axis(0):.1f} {TOP + 18}V{bottom}"/>',
    ]
    for index, row in enumerate(rows):
        y = TOP + 22 + pitch * (index + 0.5)
        kind = row.verdict.replace(" ", "-")
        name = _named(row.name, 46)
        parts.append(f'<g class="{kind}"><text class="name" x="{left - 12:.1f}" y="{y + 4:.1f}">{name}</text>')
        parts.append(_whisker(axis, row.mean, row.low, row.high, y) + "</g>")
    return _svg(bottom + 40, "Standardised differences between B and A with 95 % intervals", parts, width)


def _axis(low: float, high: float, start: float, end: float) -> _Axis:
    room = (high - low or abs(high) or 1.0) * 0.04
    return _Axis(low - room, high + room, start, end)


def _x_axis(axis: _Axis, y: float, unit: str, top: float = TOP) -> list[str]:
    marks = ticks(axis.low, axis.high, 6)
    places = _places(marks)
    parts = [f'<path class="axis" d="M{axis.start:.1f} {y:.1f}H{axis.end:.1f}"/>']
    for mark in marks:
        parts.append(f'<path class="grid" d="M{axis(mark):.1f} {top:.1f}V{y + 4:.1f}"/>')
        parts.append(f'<text class="tick" x="{axis(mark):.1f}" y="{y + 18:.1f}">{figure(mark, places)}</text>')
    if unit:
        parts.append(f'<text class="unit" x="{axis.end:.1f}" y="{y + 34:.1f}">{escape(unit)}</text>')
    return parts


def _whisker(axis: _Axis, mean: float, low: float | None, high: float | None, y: float) -> str:
    bar = ""
    if low is not None and high is not None:
        a, b = axis(low), axis(high)
        bar = f'<path class="whisker" d="M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 5:.1f}v10M{b:.1f} {y - 5:.1f}v10"/>'
    return f'{bar}<circle class="mean" cx="{axis(mean):.1f}" cy="{y:.1f}" r="4.5"/>'


def _line(values: Sequence[float | None], x: _Axis, y: _Axis) -> str:
    """Return a path through values a frame apart; it breaks where nothing was measured."""
    path, pen = [], "M"
    for frame, value in enumerate(values):
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{x(frame / FPS):.1f} {y(value):.1f}")
        pen = "L"
    return "".join(path)


def _places(marks: Sequence[float]) -> int:
    """Return the decimals that tell neighbouring ticks apart."""
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else abs(marks[0]) if marks else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _named(name: str, most: int = 22) -> str:
    short = _short(name, most)
    return escape(short) if short == name else f"{escape(short)}<title>{escape(name)}</title>"


def _svg(height: float, title: str, parts: Sequence[str], width: float = WIDTH) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    # No namespace: inside an HTML page it needs none.
    return f'<svg class="plot" role="img" {size}><title>{escape(title)}</title>{"".join(parts)}</svg>'
