"""`atldiff report`: the figures of an evaluation, or of two against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from atldiff.commands import door
from atldiff.commands.options import LogOptions, optional, read
from atldiff.commands.progress import console
from atldiff.errors import MediaError
from atldiff.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atldiff.evaluation.comparison import Comparison

LABEL_LETTERS, CELL_LETTERS = 24, 24
"""Of a line of figures; in a narrower terminal the interval goes below its mean."""
SHOWN_NOTES = 12
"""More notes on clips are counted; the page and the JSON have them all."""


@dataclass(frozen=True, slots=True)
class Report:
    """Show the figures of an evaluation with their intervals, or compare two clip by clip."""

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A.json")]
    """What `atldiff evaluate --json` wrote."""
    b: Annotated[tyro.conf.Positional[Path | None], optional("B.json")] = None
    """A second evaluation by the same protocol: how B differs from A, and whether that is shown at all."""
    html: Annotated[Path | None, optional("FILE.html")] = None
    """Also write one self-contained page."""
    json: Annotated[Path | None, optional("FILE.json")] = None
    """Also write the figures that are shown."""
    row: Annotated[str | None, optional("NAME")] = None
    """The row to show or to compare, instead of all of them or of each run's main row."""
    seed: int = 0
    """Seed of the resampling behind the intervals and p values of a comparison."""
    report: LogOptions = field(default_factory=LogOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Report, "report", args)
    for target, suffix in ((options.html, ".html"), (options.json, ".json")):
        if target is not None:
            door.check_file_target(target, suffix)
            for path in (options.a, options.b):
                if path is not None and path.exists() and target.exists() and target.samefile(path):
                    raise MediaError(f"output {target}: would replace the input {path}: choose another name")
    if options.seed < 0:
        raise ValueError(f"seed: got {options.seed}, expected 0 or more")

    from atldiff.evaluation.report import load

    results = [load(path) for path in (options.a, options.b) if path is not None]
    if len(results) == 1:
        _report_one(results[0], options)
    else:
        _report_two(results[0], results[1], options)
    return 0


def show_evaluation(result: Mapping[str, Any], rows: Sequence[str] = ()) -> None:
    """Print the figures of an evaluation, of all rows or of some, what was not measured, and the notes on clips."""
    from atldiff.evaluation.report import (
        ARROWS,
        clip_notes,
        cost_label,
        decimals_of,
        figure,
        interval_text,
        number,
        set_text,
        skipped_together,
    )

    rows = rows or result["rows"]
    gap = "\n" if LABEL_LETTERS + CELL_LETTERS * len(rows) > console().width else " "
    summary, sets, metrics = result["summary"], result.get("sets", {}), result["metrics"]
    lines = []
    names = {**metrics, **{name: {} for row in rows for name in sets.get(row, {}) if name not in metrics}}
    for name, about in names.items():
        places = decimals_of(result, name)
        cells = []
        for row in rows:
            interval, measure = summary.get(row, {}).get(name), sets.get(row, {}).get(name)
            if interval:
                mean = figure(number(interval["mean"]), places)
                cells.append(f"{mean}{gap}{interval_text(interval, places)}".rstrip())
            else:
                cells.append(figure(number(measure["value"]), places) if measure else "–")
        if any(cell != "–" for cell in cells):
            lines.append((_measure(about.get("label", name), about.get("unit"), ARROWS[about.get("better")]), *cells))
    title = f"{result['main_row']}, {len(result['clips'])} clips, protocol {result['protocol']}"
    _table(title, ("measure", *rows), lines)
    for row in rows:
        for name, measure in sets.get(row, {}).items():
            line = f"{metrics.get(name, {}).get('label', name)} of {row}: {set_text(measure)}"
            console().print(line, markup=False, highlight=False)
    for name, value in result.get("cost", {}).items():
        console().print(f"{cost_label(name)}: {figure(number(value))}", markup=False, highlight=False)
    if result.get("networks"):
        told = [(n["measure"], n["group"], figure(number(n["value"])), str(n["clips"])) for n in result["networks"]]
        _table("the networks alone, on prepared windows", ("measure", "group", "value", "clips"), told)
    for item in skipped_together(result):
        line = f"not measured: {item['labels']}: {item['reason']}"
        console().print(line, markup=False, highlight=False, soft_wrap=True)
        if item["enable"]:
            console().print(f"    {item['enable']}", markup=False, highlight=False, soft_wrap=True)
    notes = clip_notes(result, rows)
    for note in notes[:SHOWN_NOTES]:
        console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if len(notes) > SHOWN_NOTES:
        console().print(f"note: {len(notes) - SHOWN_NOTES} more, in the page and the JSON", highlight=False)
    for item in result.get("failed", []):
        console().print(f"failed: {item['clip']}: {item['reason']}", markup=False, highlight=False)


def _report_one(result: dict[str, Any], options: Report) -> None:
    from atldiff.evaluation.report import clip_notes, save

    if options.row is not None and options.row not in result["rows"]:
        raise ValueError(f"row: got {options.row!r}, expected one of {', '.join(result['rows'])}")
    rows = [options.row] if options.row is not None else result["rows"]
    if options.json is not None:
        figures = {name: {row: result.get(name, {}).get(row, {}) for row in rows} for name in ("summary", "sets")}
        told = {"cost": result.get("cost", {}), "notes": clip_notes(result, rows)}
        save({"protocol": result["protocol"], **figures, **told}, options.json)
    if options.html is not None:
        from atldiff.evaluation.page import render_page

        write_text(options.html, render_page(result))
    show_evaluation(result, rows)


def _report_two(a: dict[str, Any], b: dict[str, Any], options: Report) -> None:
    from dataclasses import asdict

    from atldiff.evaluation.comparison import compare
    from atldiff.evaluation.report import save

    comparison = compare(a, b, options.row, options.seed)
    if options.json is not None:
        save(asdict(comparison), options.json)
    if options.html is not None:
        from atldiff.evaluation.page import render_comparison

        write_text(options.html, render_comparison(comparison))
    _show_two(comparison)


def _show_two(comparison: Comparison) -> None:
    from atldiff.evaluation.comparison import notes, sentences
    from atldiff.evaluation.report import ARROWS, decimals, figure, interval_text

    lines = []
    for metric in comparison.metrics:
        change, places = metric.difference, decimals(metric.a, metric.b)
        finer = decimals(change.mean, change.low, change.high)
        bounds = interval_text({"low": change.low, "high": change.high}, finer)
        lines.append(
            (
                _measure(metric.label, metric.unit, ARROWS[metric.better]),
                *(figure(value, places) for value in (metric.a, metric.b)),
                f"{figure(change.mean, finer)} {bounds}".rstrip(),
                figure(change.p, 4),
                figure(metric.adjusted, 4),
                str(change.clips),
                metric.verdict,
            )
        )
    for single in comparison.singles:
        values = (figure(value) for value in (single.a, single.b))
        lines.append((_measure(single.label, single.unit, ""), *values, "", "", "", "", "no interval"))
    say = console()
    say.print(f"A: {comparison.a_run}\nB: {comparison.b_run}", markup=False, highlight=False)
    title = f"B - A, protocol {comparison.protocol}"
    _table(title, ("measure", "A", "B", "B - A", "p", "p (Holm)", "clips", "B is"), lines)
    for line in (*sentences(comparison), *notes(comparison)):
        say.print(line, markup=False, highlight=False, soft_wrap=True)
    for setting in comparison.settings:
        say.print(f"{setting.name}: A {setting.a}, B {setting.b}", markup=False, highlight=False, soft_wrap=True)


def _measure(label: str, unit: str | None, arrow: str) -> str:
    return " ".join(part for part in (label, f"({unit})" if unit else "", arrow) if part)


def _table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left")
    for column in columns:
        side = "left" if column in ("measure", "B is") else "right"
        table.add_column(escape(column), justify=side, no_wrap=column not in ("measure", "B is"))
    for line in lines:
        table.add_row(*(escape(cell) for cell in line))
    console().print(table)
