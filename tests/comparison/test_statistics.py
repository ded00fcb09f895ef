"""Each statistic against an independent computation, or against simulated runs in which seeds and images vary."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from src.comparison import statistics
from src.comparison.statistics import BETTER, SAME, UNKNOWN, Difference, Interval, Wrong

IMAGES = 10_000


class Laboratory:
    """Simulated trainings: how hard an image is decides, and the seed, and chance.

    Args:
        apart: How much the networks differ in what they find hard.
        seeds: Spread of how good the runs are.
    """

    def __init__(self, apart: float, seeds: float, random_state: int = 0) -> None:
        self.random = np.random.default_rng(random_state)
        self.apart, self.seeds = apart, seeds

    def images(self, better_by: float = 0.0) -> list[np.ndarray]:
        """New test images: of each network, how likely a run of average skill gets them wrong (as a normal score)."""
        hard = self.random.normal(-1.6, 1.2, self.random.binomial(IMAGES, 0.06))
        scores = [hard + self.apart * self.random.normal(size=len(hard)) for _ in range(2)]
        return [scores[0], scores[1] - better_by]

    def train(self, score_M: np.ndarray, runs: int) -> Wrong:
        """New seeds on these images. Most of the 10,000 images are easy: all runs get them right."""
        wrong_SN = np.zeros((runs, IMAGES), dtype=bool)
        skill_S = self.seeds * self.random.normal(size=(runs, 1))
        wrong_SN[:, : len(score_M)] = score_M + skill_S + self.random.normal(size=(runs, len(score_M))) > 0
        return wrong_SN


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize(("apart", "seeds"), [(0.3, 0.0), (0.3, 0.1), (0.8, 0.1)])
def test_interval_over_seeds_and_images_covers_the_truth_95_times_in_100(runs: int, apart: float, seeds: float) -> None:
    laboratory = Laboratory(apart, seeds, random_state=50)
    covered = []
    for _ in range(1000):
        wrong = [laboratory.train(score_M, runs) for score_M in laboratory.images()]
        interval = statistics.interval_over_seeds_and_images(wrong[0], wrong[1])
        covered.append(interval.low <= 0 <= interval.high)  # both networks are equally good on all images there are
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("runs", [3, 5])
def test_no_difference_is_seldom_called_better(runs: int) -> None:
    laboratory = Laboratory(apart=0.0, seeds=0.1)
    verdicts = []
    for _ in range(1000):
        score_M, _ = laboratory.images()
        wrong = [laboratory.train(score_M, runs) for _ in range(2)]
        verdicts.append(statistics.verdict(statistics.differences(wrong, [(0, 1)])[0], margin=10))
    assert verdicts.count(BETTER) / 1000 == pytest.approx(0.05, abs=0.02)


def test_a_planted_difference_is_found_as_often_as_the_power_says() -> None:
    laboratory = Laboratory(apart=0.3, seeds=0.03)
    scores = laboratory.images(better_by=0.12)
    many = [laboratory.train(score_M, 2000).sum(axis=1) for score_M in scores]
    difference, spreads = many[0].mean() - many[1].mean(), (many[0].std(), many[1].std())
    called_better = []
    for _ in range(1000):
        wrong = [laboratory.train(score_M, 5) for score_M in scores]
        called_better.append(statistics.verdict(statistics.differences(wrong, [(0, 1)])[0], margin=10) == BETTER)
    expected = statistics.power(difference, spreads, (5, 5))
    assert 0.3 < expected < 0.9  # else there would be nothing to find out
    assert np.mean(called_better) == pytest.approx(expected, abs=0.04)


def test_two_networks_get_welchs_interval() -> None:
    a, b = np.array([99, 103, 95, 110, 101]), np.array([93, 86, 88])
    variance = a.var(ddof=1) / 5 + b.var(ddof=1) / 3
    degrees = variance**2 / ((a.var(ddof=1) / 5) ** 2 / 4 + (b.var(ddof=1) / 3) ** 2 / 2)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    interval = statistics.intervals_over_seeds([a, b])[0, 1]
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((a.mean() - b.mean() - half, a.mean() - b.mean() + half))
    assert statistics.welch_variance(a, b) == pytest.approx((variance, degrees))


def test_three_networks_get_games_and_howells_intervals() -> None:
    values = [np.array([99, 103, 95, 110, 101]), np.array([93, 86, 88, 90]), np.array([70, 75, 72])]
    intervals = statistics.intervals_over_seeds(values)
    expected = stats.tukey_hsd(*values, equal_var=False).confidence_interval(0.95)
    assert intervals.keys() == {(0, 1), (0, 2), (1, 2)}
    for pair, interval in intervals.items():
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((expected.low[pair], expected.high[pair]), rel=1e-4)


@pytest.mark.parametrize("degrees", [1.1, 2.7, 8.3, 5000])
def test_tukeys_range_of_30_networks(degrees: float) -> None:
    expected = stats.studentized_range.ppf(0.95, 30, degrees) / 2**0.5
    assert statistics.critical(30, degrees) == pytest.approx(expected, rel=1e-4)


def test_without_a_spread_between_seeds_nothing_is_known() -> None:
    assert statistics.intervals_over_seeds([np.array([90, 91]), np.array([80])]) == {(0, 1): None}
    assert statistics.intervals_over_seeds([np.array([90, 91]), np.array([80, 80])]) == {(0, 1): None}
    one_run = statistics.intervals_over_seeds([np.array([90, 91]), np.array([80]), np.array([70, 75])])
    assert [pair for pair, interval in one_run.items() if interval is not None] == [(0, 2)]
    wrong = np.arange(20).reshape(2, 10) % 3 == 0
    difference = statistics.differences([wrong, wrong[:1]], [(0, 1)])[0]
    assert statistics.verdict(difference, margin=10) == UNKNOWN


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.1, 30), BETTER),
        (Interval(-30, -0.1), BETTER),
        (Interval(2, 9), BETTER),
        (Interval(-9, 10), SAME),
        (Interval(-2, 10.1), UNKNOWN),
        (Interval(-10.1, 2), UNKNOWN),
        (Interval(-40, 40), UNKNOWN),
    ],
)
def test_verdict(interval: Interval, expected: str) -> None:
    assert statistics.verdict(Difference(0, interval, interval), margin=10) == expected


def test_how_often_single_runs_agree_is_a_share_of_pairs() -> None:
    fewer, more = np.array([80, 90, 95]), np.array([85, 95, 99, 120])
    expected = np.mean([(a < b) + 0.5 * (a == b) for a, b in product(fewer, more)])
    assert statistics.single_runs_agree(fewer, more) == pytest.approx(expected)


def test_mcnemar_counts_the_images_on_which_only_one_is_wrong() -> None:
    a, b = np.zeros((1, 100), dtype=bool), np.zeros((2, 100), dtype=bool)
    a[0, :12] = True  # 10 of them only a, two both
    b[0, 10:15] = True  # 3 only b
    b[1] = a[0]
    expected = 2 * sum(comb(13, k) for k in range(4)) / 2**13
    assert statistics.mcnemar(a, b)[0] == pytest.approx([expected, 1])


def test_misleading_pairs_are_counted_across_and_within() -> None:
    a, b = np.zeros((3, 100), dtype=bool), np.zeros((2, 100), dtype=bool)
    a[0, :20] = True  # differs from all others, which are right about everything
    shares = statistics.misleading_pairs(a, b)
    assert shares == pytest.approx({"across": 2 / 6, "within_a": 2 / 3, "within_b": 0})
    assert statistics.misleading_pairs(a[:1], b)["within_a"] is None


@pytest.mark.parametrize(("difference", "spreads", "runs"), [(10, (8, 6), (5, 5)), (6, (4, 9), (3, 10))])
def test_power_is_the_share_of_simulated_experiments(
    difference: float, spreads: tuple[float, float], runs: tuple[int, int]
) -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(mean, sd, (20_000, n)) for mean, sd, n in zip((difference, 0), spreads, runs, strict=True))
    significant = stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05
    # `power` takes the spreads as known; the test estimates them.
    assert statistics.power(difference, spreads, runs) == pytest.approx(significant.mean(), abs=0.03)


def test_smallest_difference_and_runs_needed_reach_80_percent() -> None:
    spreads = (8.0, 6.0)
    smallest = statistics.smallest_difference(spreads, (5, 4))
    assert statistics.power(smallest, spreads, (5, 4)) == pytest.approx(0.8, abs=1e-6)
    for spreads in ((8.0, 6.0), (4000.0, 3000.0)):  # the second needs millions, which are not tried one by one
        needed = statistics.runs_needed(10, spreads)
        assert statistics.power(10, spreads, (needed, needed)) >= 0.8 > statistics.power(10, spreads, (needed - 1,) * 2)
