from __future__ import annotations

import numpy as np
import pytest

from atldiff.evaluation.metrics.identity import identity_cosine


def test_known_angles() -> None:
    reference = np.array([[1.0, 1.0], [1.0, -1.0]])  # mean direction (1, 0)
    assert identity_cosine(np.array([[1.0, 0.0]]), reference) == pytest.approx(1)
    assert identity_cosine(np.array([[0.0, 3.0], [2.0, 0.0]]), reference) == pytest.approx(0.5)
    assert identity_cosine(np.array([[-1.0, 0.0]]), reference) == pytest.approx(-1)


def test_lengths_do_not_matter() -> None:
    random = np.random.default_rng(0)
    frames, reference = random.standard_normal((5, 8)), random.standard_normal((3, 8))
    scaled = identity_cosine(frames * random.uniform(0.1, 9, (5, 1)), reference * random.uniform(0.1, 9, (3, 1)))
    assert scaled == pytest.approx(identity_cosine(frames, reference))


@pytest.mark.parametrize(
    ("embeddings", "reference"),
    [
        (np.ones((2, 3)), np.ones((2, 4))),
        (np.ones(3), np.ones((1, 3))),
        (np.ones((0, 3)), np.ones((1, 3))),
        (np.zeros((2, 3)), np.ones((1, 3))),
        (np.ones((2, 3)), np.array([[1.0, 0, 0], [-1.0, 0, 0]])),
        (np.full((1, 3), np.nan), np.ones((1, 3))),
    ],
)
def test_what_has_no_direction_is_refused(embeddings: np.ndarray, reference: np.ndarray) -> None:
    with pytest.raises(ValueError, match="embeddings: got"):
        identity_cosine(embeddings, reference)
