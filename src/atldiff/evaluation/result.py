"""What was measured becomes the document of an evaluation: figures with intervals, and how they came about."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch

import atldiff
from atldiff.backbones.weights import ALEXNET, INCEPTION, SFACE_WEIGHTS, SYNCNET, Published
from atldiff.evaluation.metrics.fid import MIN_PICTURES
from atldiff.evaluation.networks import network_table
from atldiff.evaluation.protocol import METRICS, PER_CLIP, PROTOCOL
from atldiff.evaluation.report import FORMAT, summarise
from atldiff.machine import processor, revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atldiff.evaluation.pictures import Backbones
    from atldiff.evaluation.run import Measured

_NEEDS: dict[str, tuple[str, Published]] = {
    **dict.fromkeys(("lpips", "mouth_lpips", "mouth_realism"), ("lpips", ALEXNET)),
    "fid": ("inception", INCEPTION),
    **dict.fromkeys(("lse_d", "lse_c", "lse_offset_ms"), ("syncnet", SYNCNET)),
    "identity": ("embedder", SFACE_WEIGHTS),
}
"""Measures that need a network: its field of `Backbones`, which is also the option's name, and where it is had."""
_OF_A_RUN = {"rtf": "the time it took to make a video is not in the video"}
"""Measures that only a checkpoint of ours has, and why."""


def assemble(
    measured: Measured,
    backbones: Backbones,
    *,
    config: Mapping[str, Any],
    command: str,
    seed: int,
    paired: bool,
    cost: Mapping[str, float],
) -> dict[str, Any]:
    """Return the document of an evaluation, as `report.save` writes it and docs/evaluation.md describes it.

    config: what was measured and how. command: the command line that repeats it. seed: of the rendering and of the
    intervals. paired: as in `measure_clip`. cost: figures of the system as a whole.
    """
    metrics = {metric.name: _described(metric) for metric in METRICS}
    summary = summarise(measured.clips, measured.rows, {metric.name: metrics[metric.name] for metric in PER_CLIP}, seed)
    sets = {}
    for row, fid in measured.fid.items():
        if min(fid.generated, fid.real) >= MIN_PICTURES:
            score = fid.score()
            sets[row] = {"fid": {"value": score.fid, "generated": score.generated, "real": score.real}}
    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "atldiff": atldiff.__version__,
        "commit": revision(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "config": dict(config),
        "machine": machine(),
        "metrics": metrics,
        "rows": measured.rows,
        "main_row": measured.main_row,
        "clips": measured.clips,
        "summary": summary,
        "sets": sets,
        "cost": dict(cost),
        "skipped": _skipped(summary.get(measured.main_row, {}), sets, backbones, command, paired=paired),
        "failed": measured.failed,
        **({"networks": network_table(measured.networks)} if measured.networks else {}),
    }


def machine() -> dict[str, Any]:
    """Return what figures of speed depend on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _described(metric: Any) -> dict[str, Any]:
    known = asdict(metric)
    return {name: known[name] for name in ("label", "unit", "better", "meaning", "source", "group")}


def _skipped(
    found: Mapping[str, Any], sets: Mapping[str, Any], backbones: Backbones, command: str, *, paired: bool
) -> list[dict[str, str]]:
    """Return every measure without a figure in the main row, why, and the command that brings it."""
    skipped = []
    for metric in METRICS:
        name, reason, enable = metric.name, "", ""
        if name in found or any(name in measures for measures in sets.values()):
            continue
        network, published = _NEEDS.get(name, ("", None))
        if published is not None and getattr(backbones, network) is None:
            reason = f"needs {published.kind} weights ({published.licence})"
            enable = _enabling(command, f"--{network}", published)
        elif metric.paired and not paired:
            reason = "cross-driven: no real frame of the same moment"
        elif name in _OF_A_RUN:
            reason, enable = _OF_A_RUN[name], "atldiff evaluate --checkpoint NAME --data PREPARED"
        else:
            reason = "no clip has what it takes (a sound track, a silence, an open mouth, or enough frames)"
        skipped.append({"metric": name, "reason": reason, "enable": enable})
    return skipped


def _enabling(command: str, option: str, published: Published) -> str:
    if "://" in published.source:
        return f"curl -LO {published.source} && {command} {option} {published.file}"
    return f"{command} {option} {published.source}"
