from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from atldiff.evaluation.metrics.fid import Fid, frechet_distance


def by_scipy(one: np.ndarray, other: np.ndarray) -> float:
    """Heusel et al. 2017, Eq. 6, by a matrix square root; symmetric, so that it bears singular covariances."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(first + 1e-12 * np.eye(len(first))))
    middle = np.real(scipy.linalg.sqrtm(root @ second @ root + 1e-12 * np.eye(len(first))))
    gap = one.mean(axis=0) - other.mean(axis=0)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * np.trace(middle))


def features(samples: int, size: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((size, size)) * np.geomspace(1, 0.05, size)
    return random.standard_normal((samples, size)) @ mixing + random.uniform(0, 2, size)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return frechet_distance(torch.from_numpy(one), torch.from_numpy(other))


@pytest.mark.parametrize(("one", "other"), [(200, 300), (500, 60)])
def test_agrees_with_a_matrix_square_root(one: int, other: int) -> None:
    a, b = features(one, 24, 0), features(other, 24, 1)
    assert distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-4)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)


def test_agrees_where_samples_are_fewer_than_features() -> None:
    a, b = features(12, 40, 2), features(20, 40, 3)
    assert distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-4)


def test_of_gaussians_on_the_line() -> None:
    a = np.array([[-1.0], [1.0]]) / np.sqrt(2)  # variance 1
    assert distance(a, 3 * a + 5) == pytest.approx(5**2 + (3 - 1) ** 2)


def test_zero_on_itself_and_grows_with_shift() -> None:
    a = features(100, 16, 4)
    values = [distance(a, a + shift) for shift in (0.0, 0.1, 0.5, 2.0)]
    np.testing.assert_allclose(values, [16 * shift**2 for shift in (0.0, 0.1, 0.5, 2.0)], atol=1e-4)


def test_single_precision_and_a_large_mean_cost_no_digits() -> None:
    a, b = features(200, 24, 5), features(200, 24, 6)
    far = 100.0
    have = frechet_distance(torch.from_numpy(a + far).float(), torch.from_numpy(b + far).float())
    assert have == pytest.approx(distance(a, b), rel=1e-4)


@pytest.mark.parametrize(
    ("one", "other"), [((5, 4), (5, 3)), ((5,), (5,)), ((1, 4), (5, 4))], ids=["width", "flat", "single"]
)
def test_other_features_are_refused(one: tuple, other: tuple) -> None:
    with pytest.raises(ValueError, match="features: got"):
        frechet_distance(torch.zeros(one), torch.zeros(other))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(torch.full((3, 2), float("nan")), torch.zeros(3, 2))


def test_features_batch_by_batch_give_the_distance_of_all() -> None:
    real, generated = (torch.from_numpy(features(count, 6, count)) for count in (40, 30))
    fid = Fid(6)
    for batch in real.split(7):
        fid.add_real(batch)
    for batch in generated.split(11):
        fid.add_generated(batch)
    score = fid.score()
    assert (score.generated, score.real) == (30, 40)
    assert score.fid == pytest.approx(frechet_distance(generated, real), rel=1e-4)


def test_too_few_frames_have_no_score() -> None:
    fid = Fid(6)
    fid.add_real(torch.zeros(3, 6))
    fid.add_generated(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="1 generated and 3 real frames"):
        fid.score()
