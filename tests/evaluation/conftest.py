from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

METRICS = {
    # name: label, unit, better, group, mean, spread
    "psnr": ("PSNR", "dB", "higher", "image", 31.0, 2.0),
    "ssim": ("SSIM", "", "higher", "image", 0.93, 0.02),
    "lpips": ("LPIPS", "", "lower", "image", 0.061, 0.015),
    "sharpness": ("sharpness", "", "closer", "image", 210.0, 40.0),
    "mouth_lmd_aligned": ("mouth LMD, aligned", "% of eye distance", "lower", "landmarks", 2.4, 0.6),
    "f_lmd": ("F-LMD", "px", "lower", "landmarks", 1.9, 0.5),
    "opening_correlation": ("lip-opening correlation", "", "higher", "sync", 0.71, 0.12),
    "lag": ("lag", "frames", "closer", "sync", 0.4, 0.8),
    "csim": ("CSIM", "", "higher", "identity", 0.88, 0.03),
    "blink_rate": ("blinks", "1/s", None, "motion", 0.31, 0.1),
    "jitter": ("jitter", "", "lower", "motion", 0.012, 0.004),
}
ROWS = ["ground truth", "static photo", "warped prior", "atl-diff"]


def build_result(
    clips: int = 24, seed: int = 0, shift: float = 0.0, rows: list[str] | None = None, metrics: int = len(METRICS)
) -> dict[str, Any]:
    """Return a made-up evaluation; `shift` worsens the main row, in standard deviations between clips."""
    from atldiff.evaluation.report import summarise

    rows = rows or ROWS
    ease = np.random.default_rng(99).normal(size=clips)  # what clips have in common, whoever is measured
    random = np.random.default_rng(seed)
    chosen = dict(list(METRICS.items())[:metrics])
    made = []
    for index in range(clips):
        values: dict[str, dict[str, Any]] = {row: {} for row in rows}
        for name, (_, _, better, _, mean, spread) in chosen.items():
            for place, row in enumerate(rows):
                worse = (len(rows) - 1 - place) * 1.2 if row != "ground truth" else -1.0
                worse += shift if row == rows[-1] else 0.0
                sign = -1 if better == "higher" else 1
                values[row][name] = round(
                    float(mean + spread * (ease[index] + 0.3 * random.normal() + sign * worse)), 6
                )
        if "psnr" in chosen:
            values["ground truth"]["psnr"] = "inf"
        time = np.arange(75) / 25
        real = 0.12 + 0.1 * np.sin(9 * time + index) * np.sin(2.3 * time)
        made.append(
            {
                "name": f"grid-s{index % 7 + 1}-{index:02d}",
                "group": "grid" if index % 3 else "crema_d",
                "frames": 75,
                "notes": ["face lost in 2 frames"] if index == 5 else [],
                "values": values,
                "series": {
                    "lip_opening": {
                        "ground truth": real.round(4).tolist(),
                        rows[-1]: (0.8 * real + 0.02 * random.normal(size=75)).round(4).tolist(),
                    }
                },
            }
        )
    about = {
        name: {
            "label": label,
            "unit": unit,
            "better": better,
            "group": group,
            "meaning": f"what {label} says",
            "source": "a paper, 2024",
        }
        for name, (label, unit, better, group, _, _) in chosen.items()
    }
    about["fid"] = {
        "label": "FID", "unit": "", "better": "lower", "group": "image", "meaning": "sets", "source": "Heusel, 2017",
    }  # fmt: skip
    return {
        "format": 1,
        "protocol": "atldiff-1",
        "atldiff": "0.2.0",
        "commit": "abc1234",
        "created": "2026-11-21T12:00:00+00:00",
        "command": "atldiff evaluate --data prepared --checkpoint atl-diff",
        "seed": 0,
        "config": {"mode": "same identity", "checkpoint": "atl-diff", "crop": 256, "sampling": {"preset": "balanced"}},
        "machine": {"cpu": "some cpu", "threads": 2},
        "metrics": about,
        "rows": rows,
        "main_row": rows[-1],
        "clips": made,
        "summary": summarise(made, rows, about, 0),
        "sets": {rows[-1]: {"fid": {"value": 12.3 + shift, "generated": 1800, "real": 1800}}},
        "cost": {"rtf": 1.7, "fps": 14.7, "peak_memory_mb": 2210.0, "parameters": 9_812_345},
        "skipped": [{"metric": "lse_d", "reason": "no SyncNet weights", "enable": "atldiff evaluate --syncnet FILE"}],
        "failed": [{"clip": "grid-s9-99", "reason": "no face was found in frame 3"}],
        "networks": [{"measure": "lip_error", "group": "grid", "value": 0.6123, "clips": 24}],
    }


@pytest.fixture(scope="session")
def make_result() -> Callable[..., dict[str, Any]]:
    """The builder of made-up evaluations."""
    return build_result
