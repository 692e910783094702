"""Face embedders through OpenCV's networks: a picture of a face to a direction that says who it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from atldiff.backbones.weights import SFACE_WEIGHTS, find
from atldiff.errors import CheckpointError
from atldiff.landmarks.topology import OVAL, POINTS

if TYPE_CHECKING:
    import os

FIVE_POINTS = np.array([468, 473, 1, 61, 291])
"""Iris centres, nose tip and mouth corners, in the template's order: the picture's left first."""

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace's five points lie in its square of 112 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderKind:
    """How an embedder wants its picture.

    side: of the square, in pixels. align: "points" puts the five points on ArcFace's template by a similarity; "box"
    cuts an upright square of `margin` times the face oval's longer side. The network is fed (RGB - mean) / scale.
    """

    name: str
    side: int
    align: Literal["points", "box"]
    mean: float
    scale: float
    margin: float = 1.0


ARCFACE = EmbedderKind(name="arcface", side=112, align="points", mean=127.5, scale=127.5)
"""ArcFace (Deng et al. 2019), e.g. InsightFace's w600k_r50.onnx."""
SFACE = EmbedderKind(name="sface", side=112, align="points", mean=0.0, scale=1.0)
"""SFace (Zhong et al. 2021), fed as cv2.FaceRecognizerSF feeds it."""
FACENET = EmbedderKind(name="facenet", side=160, align="box", mean=127.5, scale=128.0, margin=1.2)
"""FaceNet (Schroff et al. 2015), David Sandberg's models of 2018, which were trained with fixed standardisation."""


KINDS = {kind.name: kind for kind in (SFACE, ARCFACE, FACENET)}


class Network(Protocol):
    """What is used of a cv2.dnn.Net."""

    def setInput(self, blob: np.ndarray) -> None:  # noqa: N802 - OpenCV's name
        """Take a blob (1, 3, side, side) float32."""
        ...

    def forward(self) -> np.ndarray:
        """Return (1, D)."""
        ...


class Embedder:
    """One network and the way it wants faces."""

    def __init__(self, network: Network, kind: EmbedderKind) -> None:
        self.network, self.kind = network, kind

    def embed(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return who a frame shows, (D,) float32 of unit length.

        frame: (H, W, 3) uint8 RGB. points: (478, 3) pixels of it.

        Raises:
            ValueError: other shapes, or points that do not span a face.
        """
        face = align(frame, points, self.kind).astype(np.float32)
        blob = ((face - self.kind.mean) / self.kind.scale).transpose(2, 0, 1)[None]  # (1, 3, side, side)
        self.network.setInput(np.ascontiguousarray(blob))
        direction = np.asarray(self.network.forward(), np.float32).reshape(-1)
        return direction / np.linalg.norm(direction)


def align(frame: np.ndarray, points: np.ndarray, kind: EmbedderKind) -> np.ndarray:
    """Return the face as an embedder wants to see it, (side, side, 3) uint8; beyond the frame it is black.

    Raises:
        ValueError: other shapes, or points that do not span a face.
    """
    import cv2

    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame: got {frame.shape} {frame.dtype}, expected (H, W, 3) uint8")
    if points.shape != (POINTS, 3) or not np.isfinite(points).all():
        raise ValueError(f"points: got shape {points.shape}, expected ({POINTS}, 3) of finite numbers")
    flat = points[:, :2].astype(np.float64)
    if kind.align == "points":
        matrix = similarity(flat[FIVE_POINTS], TEMPLATE * (kind.side / 112))
    else:
        matrix = _upright(flat[OVAL], kind)
    return cv2.warpAffine(frame, matrix, (kind.side, kind.side), flags=cv2.INTER_LINEAR)


def _upright(oval: np.ndarray, kind: EmbedderKind) -> np.ndarray:
    low, high = oval.min(axis=0), oval.max(axis=0)
    longer = float((high - low).max())
    if longer < 1:
        raise ValueError("points: got a face of less than 1 px, expected landmarks in pixels")
    scale = kind.side / (kind.margin * longer)
    return np.concatenate([scale * np.eye(2), (kind.side / 2 - scale * (low + high) / 2)[:, None]], axis=1)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the 2x3 rotation, scale and shift, (2, 3) float64, that brings points (K, 2) nearest to others (K, 2).

    Least squares; in the plane, a multiplication and an addition of complex numbers.

    Raises:
        ValueError: the points are all one.
    """
    before, after = source @ (1, 1j), target @ (1, 1j)
    spread = before - before.mean()
    power = float((np.abs(spread) ** 2).sum())
    if power < 1e-12:
        raise ValueError("points: got all at one place, expected landmarks in pixels")
    turn = (spread.conj() @ (after - after.mean())) / power
    shift = after.mean() - turn * before.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def load(source: str | os.PathLike[str], kind: EmbedderKind) -> Embedder:
    """Load an embedder from a file (.onnx; .pb with OpenCV 5.0) or hub reference.

    It runs on the CPU, one face at a time.

    Raises:
        CheckpointError: no such file, or OpenCV cannot run it on a square of that size.
    """
    import cv2

    path = find(source, SFACE_WEIGHTS.kind)
    try:
        network = cv2.dnn.readNet(str(path))
        # OpenCV 5's importer fixes the batch of some graphs at one; larger ones are refused.
        network.setInput(np.zeros((1, 3, kind.side, kind.side), np.float32))
        shape = np.asarray(network.forward()).shape
    except cv2.error as error:
        raise CheckpointError(
            f"face embedder {path}: OpenCV cannot run it as {kind.name} ({' '.join(str(error).split())}); expected an "
            f".onnx network of (1, 3, {kind.side}, {kind.side}), or a .pb one with OpenCV 5.0"
        ) from None
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
        raise CheckpointError(f"face embedder {path}: gives {shape}, expected (1, D); not a {kind.name} embedder")
    return Embedder(network, kind)
