"""The figures of evaluations as one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup

from atldiff.evaluation.comparison import notes, sentences
from atldiff.evaluation.plots import ForestRow, IntervalRow, forest_plot, interval_plot, time_plot
from atldiff.evaluation.protocol import GROUND_TRUTH
from atldiff.evaluation.report import (
    ARROWS,
    cost_label,
    decimals,
    decimals_of,
    figure,
    flatten,
    interval_text,
    number,
    set_text,
    skipped_together,
    value_of,
    worst_first,
    worst_metric,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atldiff.evaluation.comparison import Comparison, MetricComparison

GROUPS = {
    "image": "Picture",
    "mouth": "Mouth",
    "landmarks": "Landmarks",
    "sync": "Lips and sound",
    "identity": "Identity",
    "motion": "Motion",
    "media": "File",
    "cost": "Cost",
}
LIP_OPENING = "lip_opening"
LIP_OPENING_UNIT = "outer-eye distances"


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """What a page shows of one clip."""

    name: str
    row: str
    strip_jpeg: bytes
    """Some frames beside one another; empty for none."""
    video_mp4: bytes | None
    caption: str
    poster_jpeg: bytes = b""
    """What the video shows before it is played; empty for nothing."""


def render_page(result: Mapping[str, Any], gallery: Sequence[GalleryItem] = ()) -> str:
    """Return the page of one evaluation, clips and gallery worst first."""
    main_row, metrics = result["main_row"], result["metrics"]
    worst_by = worst_metric(result)
    clips = worst_first(result)
    by_name = {clip["name"]: clip for clip in clips}
    rank = {name: place for place, name in enumerate(by_name)}
    return _template("page.html").render(
        **_shell(f"{main_row}: evaluation"),
        main_row=main_row,
        rows=result["rows"],
        counts=_counts(result),
        facts=_facts(result),
        groups=_groups(result),
        cost=[(cost_label(name), figure(number(value))) for name, value in result.get("cost", {}).items()],
        skipped=skipped_together(result),
        failed=result.get("failed", []),
        plots=_interval_plots(result),
        networks=[{**line, "value": figure(number(line["value"]))} for line in result.get("networks") or []],
        worst_by=metrics[worst_by]["label"] if worst_by else None,
        columns=_columns(result, worst_by),
        clips=[_clip_cells(result, clip) for clip in clips],
        gallery=[
            _picture(result, item, by_name.get(item.name))
            for item in sorted(gallery, key=lambda item: rank.get(item.name, len(rank)))
        ],
        command=result.get("command"),
        settings=[*flatten(result.get("config", {})).items(), *flatten(result.get("machine", {}), "machine.").items()],
    )


def render_comparison(comparison: Comparison) -> str:
    """Return the page of two evaluations against each other."""
    lines = [_compared(metric) for metric in comparison.metrics]
    return _template("comparison.html").render(
        **_shell(f"{comparison.a} against {comparison.b}"),
        a=comparison.a_run,
        b=comparison.b_run,
        protocol=comparison.protocol,
        sentences=sentences(comparison),
        notes=notes(comparison),
        lines=lines,
        singles=[
            {"label": s.label, "unit": s.unit, "a": figure(s.a), "b": figure(s.b), "note": s.note}
            for s in comparison.singles
        ],
        forest=Markup(forest_plot(_forest_rows(comparison), "A is better", "B is better")),
        settings=comparison.settings,
        clips=comparison.clips,
    )


@cache
def _environment() -> Environment:
    folder = files("atldiff.evaluation")
    return Environment(
        autoescape=True,
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> Any:
    return _environment().get_template(name)


def _shell(title: str) -> dict[str, Any]:
    css, js = (files("atldiff.evaluation").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return {"title": title, "css": Markup(css), "js": Markup(js)}


def _counts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    clips = result["clips"]
    counts = [
        ("clips", len(clips)),
        ("frames", sum(clip.get("frames") or 0 for clip in clips)),
        ("measures", len(result["metrics"])),
        ("failed", len(result.get("failed", []))),
    ]
    return [(name, figure(count, 0)) for name, count in counts if count]


def _facts(result: Mapping[str, Any]) -> list[tuple[str, object]]:
    facts = [(name, result.get(name)) for name in ("protocol", "atldiff", "commit", "seed")]
    facts.append(("measured", (result.get("created") or "")[:16].replace("T", " ")))
    return [(name, value) for name, value in facts if value not in (None, "")]


def _groups(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    sets = result.get("sets", {})
    extra = {name: {} for row in sets.values() for name in row if name not in result["metrics"]}
    for name, about in {**result["metrics"], **extra}.items():
        line = _summary_line(result, name, about)
        if line is not None:
            groups.setdefault(about.get("group", "image"), []).append(line)
    order = [*GROUPS, *(name for name in groups if name not in GROUPS)]
    return [{"name": GROUPS.get(name, name), "lines": groups[name]} for name in order if name in groups]


def _summary_line(result: Mapping[str, Any], name: str, about: Mapping[str, Any]) -> dict[str, Any] | None:
    summary, sets = result["summary"], result.get("sets", {})
    found = {row: summary.get(row, {}).get(name) or sets.get(row, {}).get(name) for row in result["rows"]}
    if not any(found.values()):
        return None
    places = decimals_of(result, name)
    cells = []
    for row, figures in found.items():
        cell = {"kind": "main" if row == result["main_row"] else "anchor", "mean": "–"}
        if figures and "mean" in figures:
            cell["mean"] = figure(number(figures["mean"]), places)
            cell["interval"] = interval_text(figures, places)
            if figures["clips"] < len(result["clips"]):
                cell["note"] = f"{figures['clips']} clips"
        elif figures:
            cell["mean"] = figure(number(figures["value"]), places)
            cell["note"] = set_text(figures)
        cells.append(cell)
    tip = ". ".join(part.rstrip(".") for part in (about.get("meaning"), about.get("source")) if part)
    return {
        "label": about.get("label", name.upper()),
        "unit": about.get("unit") or "",
        "arrow": ARROWS[about.get("better")],
        "tip": tip,
        "cells": cells,
    }


def _interval_plots(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    plots = []
    for name, about in result["metrics"].items():
        rows = []
        for row in result["rows"]:
            interval = result["summary"].get(row, {}).get(name)
            if interval is None:
                continue
            values = [value_of(clip, row, name) for clip in result["clips"]]
            bounds = (number(interval[bound]) for bound in ("mean", "low", "high"))
            points = tuple(value for value in values if value is not None)
            rows.append(IntervalRow(row, *bounds, points=points, anchor=row != result["main_row"]))
        svg = interval_plot(about["label"], about.get("unit") or "", rows) if rows else ""
        if svg:
            plots.append({"label": about["label"], "arrow": ARROWS[about.get("better")], "svg": Markup(svg)})
    return plots


def _shown_in_clips(result: Mapping[str, Any]) -> list[str]:
    row = result["main_row"]
    return [name for name in result["metrics"] if any(value_of(c, row, name) is not None for c in result["clips"])]


def _columns(result: Mapping[str, Any], worst_by: str | None) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [{"label": "clip"}, {"label": "group"}, {"label": "frames", "number": True}]
    for name in _shown_in_clips(result):
        about = result["metrics"][name]
        column = {"label": about["label"], "number": True, "arrow": ARROWS[about.get("better")]}
        if name == worst_by and about["better"] != "closer":
            column["sorted"] = "ascending" if about["better"] == "higher" else "descending"
        columns.append(column)
    if any(clip.get("notes") for clip in result["clips"]):
        columns.append({"label": "notes"})
    return columns


def _clip_cells(result: Mapping[str, Any], clip: Mapping[str, Any]) -> list[dict[str, Any]]:
    cells = [{"text": text, "sort": text} for text in (clip["name"], clip.get("group") or "")]
    frames = clip.get("frames")
    cells.append({"text": figure(frames, 0), "sort": "" if frames is None else str(frames), "number": True})
    for name in _shown_in_clips(result):
        value = value_of(clip, result["main_row"], name)
        cells.append({"text": figure(value, decimals_of(result, name)), "sort": _sort_key(value), "number": True})
    if any(other.get("notes") for other in result["clips"]):
        text = "; ".join(clip.get("notes") or ())
        cells.append({"text": text, "sort": text})
    return cells


def _sort_key(value: float | None) -> str:
    if value is None:
        return ""
    return repr(value) if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"  # as JavaScript reads it


def _picture(result: Mapping[str, Any], item: GalleryItem, clip: Mapping[str, Any] | None) -> dict[str, Any]:
    picture: dict[str, Any] = {"name": item.name, "row": item.row, "caption": item.caption}
    for part, kind, content in (
        ("strip", "image/jpeg", item.strip_jpeg),
        ("video", "video/mp4", item.video_mp4),
        ("poster", "image/jpeg", item.poster_jpeg),
    ):
        if content:
            picture[part] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    if clip is not None:
        opening = clip.get("series", {}).get(LIP_OPENING, {})
        real, generated = ([number(v) for v in opening.get(row, ())] for row in (GROUND_TRUTH, item.row))
        picture["plot"] = Markup(time_plot("lip opening", LIP_OPENING_UNIT, real, generated))
        picture["lines"] = _against_the_mean(result, item.row, clip)
    return picture


def _against_the_mean(result: Mapping[str, Any], row: str, clip: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for name, about in result["metrics"].items():
        value = value_of(clip, row, name)
        average = number(result["summary"].get(row, {}).get(name, {}).get("mean"))
        if value is None or average is None:
            continue
        places, better = decimals_of(result, name), about.get("better")
        change = value - average if math.isfinite(value) and math.isfinite(average) else None
        kind = ""
        if change and better in ("higher", "lower"):
            kind = "better" if (change > 0) == (better == "higher") else "worse"
        lines.append(
            {
                "label": about["label"],
                "unit": about.get("unit") or "",
                "arrow": ARROWS[better],
                "value": figure(value, places),
                "mean": figure(average, places),
                "difference": f"+{figure(change, places)}" if change and change > 0 else figure(change, places),
                "kind": kind,
            }
        )
    return lines


def _compared(metric: MetricComparison) -> dict[str, Any]:
    change, places = metric.difference, decimals(metric.a, metric.b)
    finer = decimals(change.mean, change.low, change.high)
    mean = figure(change.mean, finer)
    return {
        "label": metric.label,
        "unit": metric.unit,
        "arrow": ARROWS[metric.better],
        "a": figure(metric.a, places),
        "b": figure(metric.b, places),
        "difference": f"+{mean}" if change.mean and change.mean > 0 else mean,
        "interval": interval_text({"low": change.low, "high": change.high}, finer),
        "p": figure(change.p, 4),
        "adjusted": figure(metric.adjusted, 4),
        "clips": change.clips,
        "verdict": metric.verdict,
        "kind": metric.verdict if metric.verdict in ("better", "worse") else "anchor",
    }


def _forest_rows(comparison: Comparison) -> list[ForestRow]:
    """Return the measures with a direction, turned so that B's advantage is positive."""
    rows = []
    for metric in comparison.metrics:
        change = metric.difference
        if metric.better is None or None in (change.mean, change.low, change.high) or not change.spread:
            continue
        sign = 1 if metric.better == "higher" else -1
        mean, *bounds = (
            sign * value / change.spread for value in (change.mean, change.low, change.high) if value is not None
        )
        rows.append(ForestRow(metric.label, mean, min(bounds), max(bounds), metric.verdict))
    return rows
