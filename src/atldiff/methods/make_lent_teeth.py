"""Make the row of teeth that is lent, of a portrait that smiles: `python -m atldiff.methods.make_lent_teeth PORTRAIT`.

The one that ships is of the official portrait of Barack Obama of 6 December 2012 (White House, Pete Souza), which is in
the public domain as a work of the government of the United States.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from atldiff.landmarks.control import CHIN
from atldiff.landmarks.detect import detect
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.video.cavity import MouthLayers
from atldiff.video.still import read_image
from atldiff.video.window import WindowGeometry, apply, extract, fit_window

MIDDLE = 0.3
"""Share of the row's width, around its middle, whose lower edge is where the incisors end."""
WHITE, BRIGHT = 0.62, 90
"""Least over largest channel, and level, from which a pixel is a tooth's."""
METADATA = {"source": "Official portrait of Barack Obama, 2012, White House (Pete Souza); public domain", "format": "1"}


def make(portrait: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a row: see `lent_teeth`.

    picture: (h, w, 3) uint8. seen, shade: (h, w) uint8. edge: (2,) the middle of the incisors' edges, in its pixels.
    step: () template pixels a pixel. light: (3,) the colour around the mouth.
    """
    image = read_image(portrait)
    points = detect(image)[None]
    native = fit_window(points, WindowGeometry(128, (0, 0)))[0]
    scale = 1 / float(np.hypot(native[0, 0], native[1, 0]))
    geometry = WindowGeometry(round(64 * scale), (32, 36), scale, round(44 * scale))
    place = fit_window(points, geometry)[0]
    own = apply(place, points[0, :, :2].astype(np.float64))
    picture = extract(image, place, geometry.size, sharp=True)
    layers = MouthLayers.prepare(picture, own[LIPS_INNER], own[CHIN].mean(0), np.eye(2, 3) / scale)
    seen = layers.skull * _above_lower_edge(layers.cavity, layers.skull)
    x, y, width, height = cv2.boundingRect((seen > 0.02).astype(np.uint8))
    part = slice(y, y + height), slice(x, x + width)
    seen = seen[part]
    columns, weight = np.arange(width), seen.sum(0)
    middle = float((columns * weight).sum() / weight.sum())
    near = np.abs(columns - middle) < MIDDLE / 2 * width
    lowest = height - 1 - (seen[::-1] > 0.5).argmax(0)[near]
    return {
        "picture": np.ascontiguousarray(layers.cavity[part]),
        "seen": np.rint(255 * seen).astype(np.uint8),
        "shade": np.rint(255 * layers.shade[part]).astype(np.uint8),
        "edge": np.array([middle, np.median(lowest) + 0.5], np.float32),
        "step": np.array(1 / scale, np.float32),
        "light": layers.light.astype(np.float32),
    }


def _above_lower_edge(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return where a picture (h, w, 3) shows teeth or what is above them, (h, w) float32: no lower lip.

    Teeth have as much green and blue as red; an edge is looked for column by column and smoothed along the row.
    """
    white = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
    white = (white.min(-1) > WHITE * white.max(-1)) & (white.min(-1) > BRIGHT) & (seen > 0.5)
    has = np.flatnonzero(white.any(0))
    rows = np.arange(len(picture))[:, None]
    lowest = np.where(white, rows, -1).max(0)[has]
    columns = np.arange(picture.shape[1])
    kept = has
    for _ in range(3):  # without the shine of a wet lip below a tooth
        fit = np.polynomial.Polynomial.fit(kept, lowest[np.searchsorted(has, kept)], 4)
        kept = has[lowest - fit(has) < 0.6]
    curve = fit(np.clip(columns, has[0], has[-1]))
    smooth = np.interp(
        columns, has, np.median(np.lib.stride_tricks.sliding_window_view(np.pad(lowest, 3, "edge"), 7), 1)
    )
    low = np.clip(smooth, curve - 2, curve)
    return np.clip(low + 0.2 - rows, 0, 1).astype(np.float32)


if __name__ == "__main__":
    save_file(make(Path(sys.argv[1])), Path(__file__).with_name("lent_teeth.safetensors"), METADATA)
