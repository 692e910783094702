"""Where a picture shows a person, hair and clothes included, by MediaPipe's selfie segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atldiff.landmarks.crop import cut
from atldiff.landmarks.networks import network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOOKED_AT = 256
"""Side of the picture that the network sees."""


def person_mask(image: NDArray[np.uint8], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return how sure it is that a pixel is a person's, in [0, 1], over a square of a picture, (256, 256).

    image: (H, W, 3) uint8 RGB. low, high: (2,) corners of the square in its pixels, which may lie outside.
    """
    crop = cut(image, (low + high) / 2, float((high - low).max()), LOOKED_AT)
    (mask,) = network("person")(crop.pixels)
    return mask
