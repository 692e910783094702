"""Mouths of several portraits that speak, side by side: the portrait, then six frames from closed to wide open.

python examples/mouth_sheet.py OUT.png SPEECH PORTRAIT... [--method NAME|FOLDER] [--preset fast|balanced|best]
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from atldiff import TalkingHead
from atldiff.landmarks.topology import LIPS_OUTER, OUTER_EYE_CORNERS, lip_opening

CELL = (240, 192)
REACH = 0.52
"""Half the width of a cell, in eye distances."""
SHARES = (0.01, 0.25, 0.5, 0.7, 0.9, 0.99)
"""Frames shown, by how many of all are more closed."""


def mouth(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the mouth of a frame (H, W, 3), enlarged; points: (478, 3) pixels."""
    centre = points[LIPS_OUTER, :2].mean(0)
    reach = REACH * float(np.linalg.norm(np.subtract(*points[OUTER_EYE_CORNERS, :2])))
    scale = CELL[0] / (2 * reach)
    corner = centre - reach * np.array([1, 0.75])
    matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(frame, matrix, CELL, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def main() -> None:
    """Render, cut and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out")
    parser.add_argument("speech")
    parser.add_argument("portraits", nargs="+")
    parser.add_argument("--method", default="atl-diff")
    parser.add_argument("--preset", default="balanced")
    options = parser.parse_args()
    head = TalkingHead.from_pretrained(options.method)
    rows = []
    for path in options.portraits:
        portrait = head.open_portrait(path)
        track = head.landmarks(portrait, options.speech)
        points = track.points()
        order = np.argsort(lip_opening(track.neutral + track.displacements))
        wanted = {int(order[round(share * (len(order) - 1))]): column for column, share in enumerate(SHARES)}
        row = [mouth(portrait.image, portrait.landmarks)] + [np.zeros((*CELL[::-1], 3), np.uint8)] * len(SHARES)
        for index, frame in enumerate(head.render(portrait, track, sampling=options.preset)):
            if index in wanted:
                row[1 + wanted[index]] = mouth(frame[..., :3], points[index])
        rows.append(np.hstack(row))
    cv2.imwrite(options.out, np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    main()
