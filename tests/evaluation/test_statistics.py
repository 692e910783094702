from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from atldiff.evaluation import statistics
from atldiff.evaluation.statistics import bootstrap_mean, holm, paired, smallest_p

INF = math.inf


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is asked of hundreds of samples."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)


class TestBootstrapMean:
    def test_the_interval_of_a_known_distribution(self) -> None:
        values = np.random.default_rng(0).normal(10, 2, 400).tolist()
        interval = bootstrap_mean(values, 0)
        half = NormalDist().inv_cdf(0.975) * np.std(values) / math.sqrt(400)
        assert interval.mean == pytest.approx(np.mean(values))
        assert interval.low == pytest.approx(interval.mean - half, abs=0.03)
        assert interval.high == pytest.approx(interval.mean + half, abs=0.03)
        assert interval.clips == 400

    @pytest.mark.usefixtures("fewer_resamples")
    @pytest.mark.parametrize("kind", ["normal", "exponential"])
    def test_it_covers_the_truth_as_often_as_it_says(self, kind: str) -> None:
        random = np.random.default_rng(1)
        draw = {"normal": lambda: random.normal(1, 1, 60), "exponential": lambda: random.exponential(1, 60)}[kind]
        hits = 0
        for seed in range(200):
            interval = bootstrap_mean(draw().tolist(), seed)
            assert interval.low is not None
            assert interval.high is not None
            hits += interval.low <= 1 <= interval.high
        assert 0.88 <= hits / 200 <= 0.99  # 95 % less what a percentile bootstrap of 60 values lacks

    def test_degenerate_inputs(self) -> None:
        nothing = bootstrap_mean([], 0)
        assert (nothing.mean, nothing.low, nothing.high, nothing.clips) == (None, None, None, 0)
        one = bootstrap_mean([3.0, None], 0)
        assert (one.mean, one.low, one.high, one.clips) == (3.0, None, None, 1)
        same = bootstrap_mean([2.0] * 5, 0)
        assert (same.mean, same.low, same.high, same.clips) == (2.0, 2.0, 2.0, 5)
        endless = bootstrap_mean([INF, 30.0], 0)
        assert (endless.mean, endless.low, endless.high, endless.clips) == (INF, None, None, 2)
        assert bootstrap_mean([INF, -INF], 0).mean is None

    def test_the_seed_decides(self) -> None:
        values = np.random.default_rng(4).normal(size=20).tolist()
        assert bootstrap_mean(values, 3) == bootstrap_mean(values, 3)
        assert any(bootstrap_mean(values, 3) != bootstrap_mean(values, seed) for seed in range(4, 8))


class TestPaired:
    def test_p_counts_every_pattern_of_signs(self) -> None:
        a, b = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.5, 2.7, 2.9, 4.2, 5.9, 6.4, 7.6]
        changes = np.subtract(b, a)
        patterns = np.array(list(itertools.product([-1, 1], repeat=7))) @ changes / 7
        expected = (np.abs(patterns) >= abs(changes.mean()) - 1e-12).mean()
        difference = paired(a, b, 0)
        assert difference.p == pytest.approx(expected)
        assert difference.mean == pytest.approx(changes.mean())
        assert difference.spread == pytest.approx(changes.std(ddof=1))
        assert difference.clips == 7

    def test_the_clearest_outcome_has_the_smallest_p(self) -> None:
        for clips in (2, 6, 13, 14, 40):
            a = list(range(clips))
            assert paired(a, [value + 1 + 0.01 * value for value in a], 0).p == pytest.approx(smallest_p(clips))
        assert smallest_p(5) > 0.05 > smallest_p(6)
        assert smallest_p(1) == 1
        assert smallest_p(5000) == smallest_p(14)

    def test_the_order_of_the_two_is_the_sign(self) -> None:
        a, b = [1.0, 2.0, 4.0, 3.0, 6.0, 5.0], [2.0, 2.5, 5.5, 3.0, 8.0, 7.0]
        forth, back = paired(a, b, 0), paired(b, a, 0)
        assert forth.mean is not None
        assert back.mean == -forth.mean
        assert back.p == pytest.approx(forth.p)

    @pytest.mark.usefixtures("fewer_resamples")
    def test_no_effect_is_rarely_seen(self) -> None:
        random = np.random.default_rng(2)
        ps = [paired(random.normal(size=12).tolist(), random.normal(size=12).tolist(), 0).p for _ in range(200)]
        assert np.mean(np.array(ps) < 0.05) < 0.1

    def test_only_clips_with_both_values_count(self) -> None:
        difference = paired([1.0, None, 3.0, 4.0], [2.0, 5.0, None, 6.0], 0)
        assert (difference.clips, difference.mean) == (2, 1.5)

    def test_degenerate_inputs(self) -> None:
        nothing = paired([None], [1.0], 0)
        assert (nothing.mean, nothing.low, nothing.p, nothing.clips, nothing.spread) == (None, None, None, 0, None)
        one = paired([1.0], [3.0], 0)
        assert (one.mean, one.low, one.p, one.clips) == (2.0, None, 1.0, 1)
        same = paired([1.0, 2.0], [1.0, 2.0], 0)
        assert (same.mean, same.low, same.high, same.p, same.spread) == (0.0, 0.0, 0.0, 1.0, 0.0)
        shared = paired([INF, 30.0], [INF, 31.0], 0)
        assert (shared.mean, shared.clips) == (0.5, 2)
        endless = paired([30.0, 30.0], [INF, 31.0], 0)
        assert (endless.mean, endless.low, endless.p) == (INF, None, None)
        assert paired([30.0, INF], [INF, 30.0], 0).mean is None
        with pytest.raises(ValueError, match="same clips"):
            paired([1.0], [1.0, 2.0], 0)

    def test_the_seed_decides(self) -> None:
        random = np.random.default_rng(3)
        a, b = random.normal(size=20).tolist(), random.normal(0.4, 1, 20).tolist()
        assert paired(a, b, 1) == paired(a, b, 1)


class TestHolm:
    def test_a_worked_example(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_bounds(self) -> None:
        assert holm([]) == []
        assert holm([0.2]) == [0.2]
        assert holm([0.6, 0.7]) == [1.0, 1.0]
