"""Who is who in a folder without labels: clips whose faces could be the same person's are kept together.

The purpose is a split by identity, so the error to avoid is one person on both sides. Clips are joined by single
linkage: whoever looks alike through any chain of clips is one identity.

Two measures of alikeness. Appearance needs nothing: the colours of a thumbnail. It parts one person's clips where
light, hair or clothes differ, and joins different people before one studio wall; it then leaks people from one side of
a split to the other. A face embedder (`backbones.embedder`) sees through both: give one where there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from atldiff.errors import MediaError
from atldiff.files import replacing
from atldiff.timebase import FPS
from atldiff.video.read import read_frames_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atldiff.backbones.embedder import Embedder
    from atldiff.data.clip import ClipRecord

ALIKE = 1.5
"""Distance of two thumbnails under which they may show one person: same-person pairs of GRID mostly lie within 1.3."""
CELLS = 16
SAME_COSINE = 0.62
"""Cosine of two clips' face embeddings from which they are one person."""
EMBEDDED_FRAMES = 3
EMBEDDINGS_FILE = "embeddings.safetensors"
"""In the prepared folder: what `embed_clips` has measured so far, by embedder and clip."""
SAVED_EVERY = 100


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
    for members in by_source.values():
        features = []
        for record in members:
            with safe_open(str(clips / f"{record.name}.safetensors"), "numpy") as file:
                features.append(describe(file.get_tensor("thumbnail")))
        identities |= _named(members, group(np.stack(features), ALIKE))
    return identities


def identities_by_face(records: Sequence[ClipRecord], embeddings: dict[str, np.ndarray]) -> dict[str, str]:
    """Return clip name to identity from face embeddings (`embed_clips`), over all sources: people move between corpora.

    records: usable clips. embeddings: clip name to a direction (D,).
    """
    directions = np.stack([embeddings[record.name] for record in records])
    # Of unit vectors the Euclidean distance is a function of the cosine.
    return _named(records, group(directions, float(np.sqrt(2 - 2 * SAME_COSINE))))


def embed_clips(
    records: Sequence[ClipRecord],
    source: Path,
    prepared: Path,
    embedder: Embedder,
    name: str,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return clip name to the mean face embedding (D,) of three of its frames, of unit length.

    source: folder of the raw videos. prepared: folder of the clips, where the embeddings are kept: what is there is
    not measured again. name: the embedder's, for that.

    Raises:
        MediaError: a raw video is gone.
    """
    path = prepared / EMBEDDINGS_FILE
    kept = load_file(path) if path.is_file() else {}
    found = {record.name: kept[key] for record in records if (key := f"{name}/{record.name}") in kept}
    missing = [record for record in records if record.name not in found]
    report = progress or (lambda done, total: None)
    for index, record in enumerate(missing, 1):
        found[record.name] = kept[f"{name}/{record.name}"] = _embed(record, source, prepared, embedder)
        report(len(records) - len(missing) + index, len(records))
        if index % SAVED_EVERY == 0 or index == len(missing):
            with replacing(path) as partial:
                save_file(kept, partial)
    return found


def _embed(record: ClipRecord, source: Path, prepared: Path, embedder: Embedder) -> np.ndarray:
    with safe_open(str(prepared / "clips" / f"{record.name}.safetensors"), "numpy") as file:
        points = file.get_tensor("points")
    video = source / record.path
    if not video.is_file():
        raise MediaError(f"video {video}: gone since it was prepared, expected it for telling people apart")
    wanted = {int(index) for index in np.linspace(0, len(points) - 1, EMBEDDED_FRAMES)}
    directions = []
    for index, frame in enumerate(read_frames_at(video, FPS, start=record.start)):
        if index in wanted:
            directions.append(embedder.embed(frame, points[index]))
            if len(directions) == len(wanted):
                break
    mean = np.mean(directions, axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def _named(records: Sequence[ClipRecord], groups: np.ndarray) -> dict[str, str]:
    """Return clip name to identity, which is called after the group's first clip: new people rename nobody."""
    first: dict[int, str] = {}
    return {
        record.name: first.setdefault(int(number), f"{record.source}/{record.name}")
        for record, number in zip(records, groups, strict=True)
    }
