"""Where a picture shows a person, hair and clothes included, by MediaPipe's selfie segmentation, offline."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.errors import AtlDiffError
from atldiff.landmarks.crop import cut
from atldiff.landmarks.detect import quiet_stderr

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKED_AT = 256
"""Side of the picture that the network sees."""

_one_at_a_time = Lock()


@lru_cache(maxsize=1)
def _network() -> Any:  # noqa: ANN401 - MediaPipe has no types
    with quiet_stderr():
        try:
            from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation
        except ImportError as error:
            raise AtlDiffError(
                f"person: MediaPipe with its selfie segmentation is needed ({error}); install mediapipe==0.10.14, made "
                "for Python 3.10 to 3.12"
            ) from None
        network = SelfieSegmentation(model_selection=0)
        network.process(np.zeros((LOOKED_AT, LOOKED_AT, 3), np.uint8))
    return network


def person_mask(image: NDArray[np.uint8], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return how sure it is that a pixel is a person's, in [0, 1], over a square of a picture, (256, 256).

    image: (H, W, 3) uint8 RGB. low, high: (2,) corners of the square in its pixels, which may lie outside.
    """
    crop = cut(image, (low + high) / 2, float((high - low).max()), LOOKED_AT)
    with _one_at_a_time:
        return np.array(_network().process(np.ascontiguousarray(crop.pixels)).segmentation_mask, np.float32)
