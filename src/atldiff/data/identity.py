"""Who is who in a folder without labels: clips whose faces could be the same person's are kept together.

The purpose is a split by identity, so the error to avoid is one person on both sides. Clips are joined by single
linkage: whoever looks alike through any chain of clips is one identity. Where light and clothes change between clips
of one person (news studios), this cannot tell people apart: keep such a source whole with `train_only`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atldiff.data.clip import ClipRecord

ALIKE = 1.5
"""Distance of two thumbnails under which they may show one person: same-person pairs of GRID lie within 1.3."""
CELLS = 16


def describe(thumbnail: np.ndarray) -> np.ndarray:
    """Return the appearance (768,) of a whole-face thumbnail (64, 64, 3) uint8: its Lab colours on a 16 x 16 grid."""
    import cv2

    small = cv2.resize(thumbnail, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32).ravel() / 255


def group(features: np.ndarray, distance: float) -> np.ndarray:
    """Return a group number (N,) for features (N, D): single linkage at `distance`."""
    if len(features) < 2:
        return np.zeros(len(features), int)
    from scipy.cluster.hierarchy import fcluster, linkage

    return fcluster(linkage(features, "single"), distance, "distance") - 1


def assign_identities(records: Sequence[ClipRecord], clips: Path, identity_from: str) -> dict[str, str]:
    """Return clip name to identity, unique over sources.

    records: usable clips. clips: folder of their tensors. identity_from: `appearance`, `folder` or `file`.
    """
    if identity_from == "file":
        return {record.name: record.path for record in records}
    if identity_from == "folder":
        return {record.name: record.path.rpartition("/")[0] for record in records}
    by_source: dict[str, list[ClipRecord]] = {}
    for record in records:
        by_source.setdefault(record.source, []).append(record)
    identities = {}
    for source, members in by_source.items():
        features = []
        for record in members:
            with safe_open(str(clips / f"{record.name}.safetensors"), "numpy") as file:
                features.append(describe(file.get_tensor("thumbnail")))
        groups = group(np.stack(features), ALIKE)
        first: dict[int, str] = {}
        for record, number in zip(members, groups, strict=True):
            # Named after the group's first clip: adding clips of other people renames nobody.
            identities[record.name] = first.setdefault(int(number), f"{source}/{record.name}")
    return identities
