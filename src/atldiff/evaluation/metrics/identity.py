"""Whether a video shows the person of the portrait."""

from __future__ import annotations

import numpy as np


def identity_cosine(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean cosine of face embeddings with the person's mean embedding; -1 to 1, higher is better.

    embeddings: (T, D) of the frames. reference: (R, D) of the person. Both of one embedder, of any length: each is
    scaled to unit length, and so is the reference's mean. Known as CSIM (Zakharov et al. 2019, arXiv 1905.08233);
    values of different embedders do not compare.

    Raises:
        ValueError: other shapes, no embedding, one that is not finite or zero, or a reference that cancels out.
    """
    embeddings, reference = np.asarray(embeddings, np.float64), np.asarray(reference, np.float64)
    if embeddings.ndim != 2 or reference.ndim != 2 or embeddings.shape[1] != reference.shape[1]:
        raise ValueError(f"embeddings: got shapes {embeddings.shape} and {reference.shape}, expected (T, D) and (R, D)")
    if not len(embeddings) or not len(reference):
        raise ValueError(f"embeddings: got {len(embeddings)} and {len(reference)}, expected at least one of each")
    person = _unit(_unit(reference).mean(axis=0, keepdims=True))  # (1, D)
    return float((_unit(embeddings) @ person[0]).mean())


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise ValueError("embeddings: got one that is zero or not finite, expected directions")
    return vectors / lengths
