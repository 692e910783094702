"""What was measured becomes the document and the table of an ablation."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import atldiff
from atldiff.ablation.arms import ARMS, PUBLISHED
from atldiff.ablation.measure import METRICS
from atldiff.evaluation.report import summarise, value_of
from atldiff.evaluation.result import machine
from atldiff.evaluation.statistics import holm, paired
from atldiff.machine import revision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from atldiff.config import TrainConfig

FORMAT = 1
IDENTITY, WARPED, REAL = "identity", "warped", "real"
"""Rows without a network: the unmoved identity held still, the landmark-warped identity, and the real frames."""
_TITLES = {
    IDENTITY: "unmoved identity held still, no network",
    WARPED: "landmark-warped identity, no network",
    REAL: "real frames",
}
SIGNIFICANT = 0.05
_DIGITS = {"ssim": 4, "mouth_error": 3, "face_found": 1}
_ARROWS = {"higher": " ↑", "lower": " ↓"}
_NO_FIGURE = "—"


def row_name(arm: str, steps: int) -> str:
    """Return the name of an arm's row at a number of steps."""
    return f"{arm}@{steps}"


def rows(sampling_steps: Sequence[int]) -> list[dict[str, Any]]:
    """Return the table's rows in order: name, title, arm and steps (None without a network)."""
    plain = lambda name: {"name": name, "title": _TITLES[name], "arm": None, "steps": None}  # noqa: E731 - used thrice
    arms = [
        {"name": row_name(arm.name, steps), "title": arm.title, "arm": arm.name, "steps": steps}
        for arm in ARMS
        for steps in sampling_steps
    ]
    return [plain(IDENTITY), plain(WARPED), *arms, plain(REAL)]


def assemble(
    clips: list[dict[str, Any]],
    skipped: list[dict[str, str]],
    *,
    base: TrainConfig,
    sampling_steps: Sequence[int],
    split: str,
    data: str,
    command: str,
    dtype: str,
    parameters: int,
) -> dict[str, Any]:
    """Return the document: figures of every clip, their means with 95 % intervals, and how they came about.

    clips: name, person, frames and `values` by row and measure. skipped: clips without figures, and why. `differences`
    are those from the published arm at the same number of steps, over the same clips; `p_holm` is adjusted for all of
    them.
    """
    table = rows(sampling_steps)
    metrics = {metric.name: asdict(metric) for metric in METRICS}
    differences: dict[str, dict[str, Any]] = {}
    for row in table:
        if row["arm"] in (None, PUBLISHED.name):
            continue
        published = row_name(PUBLISHED.name, row["steps"])
        differences[row["name"]] = {
            metric: asdict(
                paired(
                    [value_of(clip, published, metric) for clip in clips],
                    [value_of(clip, row["name"], metric) for clip in clips],
                    base.seed,
                )
            )
            for metric in metrics
        }
    tested = [found for measures in differences.values() for found in measures.values() if found["p"] is not None]
    for found, adjusted in zip(tested, holm([found["p"] for found in tested]), strict=True):
        found["p_holm"] = adjusted
    return {
        "format": FORMAT,
        "atldiff": atldiff.__version__,
        "commit": revision(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "seed": base.seed,
        "config": {
            "training": asdict(base),
            "sampling_steps": list(sampling_steps),
            "split": split,
            "data": data,
            "dtype": dtype,
        },
        "parameters": parameters,
        "machine": machine(),
        "metrics": metrics,
        "rows": table,
        "clips": clips,
        "people": len({clip["person"] for clip in clips}),
        "summary": summarise(clips, [row["name"] for row in table], metrics, base.seed),
        "differences": differences,
        "skipped": skipped,
    }


def markdown(document: Mapping[str, Any], sheet: str) -> str:
    """Return the tables of a document as Markdown: means, their 95 % intervals, differences from the published arm.

    sheet: file of the pictures, as the page names it.
    """
    training, clips = document["config"]["training"], document["clips"]
    count = len(document["skipped"])
    skipped = f" ({count} clip{'' if count == 1 else 's'} left out: too short)" if count else ""
    lines = [
        f"{len(clips)} clips of {document['people']} people of the split `{document['config']['split']}`, none of whom "
        f"was trained on{skipped}. Each of the {len(ARMS)} arms: {training['steps']} steps of "
        f"{training['clips_per_batch']} clips of {training['frames']} frames, the same clips, noise and first weights "
        f"(seed {document['seed']}); {document['parameters'] / 1e6:.1f} M parameters. Landmarks are the real clip's; "
        "figures are means over clips.",
        "",
        *_grid(document, _mean),
        "",
        *(f"- {about['label']}: {about['meaning']}." for about in document["metrics"].values()),
        "",
        f"![Held-out people by renderer]({sheet})",
        "",
        "Each row shows the frame whose real mouth differs most from the identity's.",
        "",
        "95 % intervals of the means (bootstrap over clips; clips of one person count as independent):",
        "",
        *_grid(document, _interval),
        "",
        f"Difference from the {PUBLISHED.title} at the same number of steps, over the same clips, with its 95 % "
        f"interval; **bold** where it is significant (sign flips of the clips, p below {SIGNIFICANT} after Holm):",
        "",
        *_grid(document, _difference, only=document["differences"]),
        "",
        f"`{document['command']}`, commit {document['commit'] or 'unknown'}, {document['created'][:10]}, "
        f"{document['machine']['processor']}.",
    ]
    return "\n".join(lines) + "\n"


def _grid(
    document: Mapping[str, Any], cell: Callable[[Mapping[str, Any], str, str], str], only: Collection[str] | None = None
) -> list[str]:
    """Return a table, one line a row; cell: (document, row, measure) to its text. only: the rows that are shown."""
    metrics = document["metrics"]
    heads = [_head(about) for about in metrics.values()]
    lines = ["| | steps | " + " | ".join(heads) + " |", "|:--|--:|" + "--:|" * len(heads)]
    for row in document["rows"]:
        if only is None or row["name"] in only:
            cells = [cell(document, row["name"], metric) for metric in metrics]
            lines.append(f"| {row['title']} | {row['steps'] or _NO_FIGURE} | " + " | ".join(cells) + " |")
    return lines


def _head(about: Mapping[str, Any]) -> str:
    unit = f", {about['unit']}" if about["unit"] else ""
    return f"{about['label']}{unit}{_ARROWS.get(about['better'], '')}"


def _mean(document: Mapping[str, Any], row: str, metric: str) -> str:
    """Return a mean, and of how many clips where it is not of all."""
    found = document["summary"].get(row, {}).get(metric)
    if found is None or found["mean"] is None:
        return _NO_FIGURE
    fewer = f" ({found['clips']})" if found["clips"] < len(document["clips"]) else ""
    return _number(found["mean"], metric) + fewer


def _interval(document: Mapping[str, Any], row: str, metric: str) -> str:
    found = document["summary"].get(row, {}).get(metric)
    if found is None or found["low"] is None:
        return _NO_FIGURE
    return f"{_number(found['low'], metric)} to {_number(found['high'], metric)}"


def _difference(document: Mapping[str, Any], row: str, metric: str) -> str:
    found = document["differences"][row][metric]
    if found["mean"] is None:
        return _NO_FIGURE
    change = _signed(found["mean"], metric)
    if found["low"] is None:
        return change
    if found.get("p_holm", 1) < SIGNIFICANT:
        change = f"**{change}**"
    return f"{change} ({_signed(found['low'], metric)} to {_signed(found['high'], metric)})"


def _number(value: float, metric: str) -> str:
    return "∞" if math.isinf(value) else f"{value:.{_DIGITS.get(metric, 2)}f}"


def _signed(value: float, metric: str) -> str:
    return "∞" if math.isinf(value) else f"{value:+.{_DIGITS.get(metric, 2)}f}"
