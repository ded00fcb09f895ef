"""What a few runs of each network show about the difference of two networks. Errors are counted in test images."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

LEVEL = 0.95
POWER = 0.80
# The spread between seeds counts only where it exceeds this multiple of the spread that the images explain. The value
# was chosen in simulations: with a lower one the interval is too wide if seeds have no effect; with a higher one it is
# too narrow if they do.
BEYOND_CHANCE = 1.25
DIFFERENCES_OF_INTEREST = (5, 7, 10, 20)  # images in 10,000; 7 is the published difference
BETTER, SAME, UNKNOWN = "better", "no difference that matters", "cannot tell"

Wrong = NDArray[np.bool_]  # (runs S, images N): True where a run is wrong about an image


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, in images."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def within(self, margin: float) -> bool:
        return -margin <= self.low and self.high <= margin


@dataclass(frozen=True)
class Difference:
    """The first network's mean errors minus the second's. The intervals need two runs of each network."""

    mean: float
    over_seeds: Interval | None  # other seeds, the same test images
    over_seeds_and_images: Interval | None  # other seeds and other test images of the same kind


def differences(wrong: list[Wrong], pairs: list[tuple[int, int]]) -> list[Difference]:
    """Return the difference of each pair of networks, with intervals that hold for all pairs of them together."""
    errors = [wrong_SN.sum(axis=1) for wrong_SN in wrong]
    intervals = intervals_over_seeds(errors)
    return [
        Difference(
            float(errors[a].mean() - errors[b].mean()),
            intervals[a, b],
            interval_over_seeds_and_images(wrong[a], wrong[b], len(wrong)) if intervals[a, b] else None,
        )
        for a, b in pairs
    ]


def verdict(difference: Difference, margin: float) -> str:
    """Return BETTER, SAME or UNKNOWN, from the interval over seeds. A wide interval never counts as equality.

    `margin` is the largest difference, in images, that doesn't matter.
    """
    if difference.over_seeds is None:
        return UNKNOWN
    if difference.over_seeds.excludes_zero:
        return BETTER
    return SAME if difference.over_seeds.within(margin) else UNKNOWN


def summary(values: ArrayLike) -> dict[str, float | None]:
    """Return mean, standard deviation and 95 % interval of the mean (Student's t); of one value, the mean alone."""
    values_S = np.asarray(values, dtype=float)
    mean = float(values_S.mean())
    if len(values_S) < 2:
        return {"mean": mean, "sd": None, "low": None, "high": None}
    sd = float(values_S.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values_S) - 1)) * sd / len(values_S) ** 0.5
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def band(values_SX: ArrayLike) -> dict[str, list[float]]:
    """Return mean, lowest and highest value over the runs, each a list over X; NaN where a run has no value."""
    values_SX = np.asarray(values_SX, dtype=float)  # None becomes NaN
    mean, low, high = values_SX.mean(axis=0), values_SX.min(axis=0), values_SX.max(axis=0)
    return {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}


def intervals_over_seeds(values: list[NDArray[Any]]) -> dict[tuple[int, int], Interval | None]:
    """Return the interval of each difference of means for other seeds; None where the spread of one is not known.

    Two networks get Welch's interval (Welch 1947), more get those of Games and Howell (1976).
    """

    def interval(a_S: NDArray[Any], b_S: NDArray[Any]) -> Interval | None:
        if not all(len(values_S) > 1 and values_S.var() > 0 for values_S in (a_S, b_S)):
            return None
        variance, degrees = welch_variance(a_S, b_S)
        half = critical(len(values), degrees) * variance**0.5
        mean = float(a_S.mean() - b_S.mean())
        return Interval(mean - half, mean + half)

    return {(a, b): interval(values[a], values[b]) for a, b in combinations(range(len(values)), 2)}


def interval_over_seeds_and_images(wrong_a_SN: Wrong, wrong_b_SN: Wrong, n_networks: int = 2) -> Interval:
    """Return the interval of the difference for other seeds and other test images.

    Every run is tested on every image, so seeds and images are crossed (Owen 2007, "The pigeonhole bootstrap").
    The variance is the variance over the images, plus that part of the variance over the seeds that the interaction of
    seeds and images does not explain. The variance over the images already contains the interaction, because each run
    misclassifies other images.
    In simulations the interval covers the truth 93 to 97 times in 100, for 3, 5 and 10 runs
    (tests/comparison/test_statistics.py).
    """
    n_images = wrong_a_SN.shape[1]
    share_a_N, share_b_N = wrong_a_SN.mean(axis=0), wrong_b_SN.mean(axis=0)  # of the runs that are wrong
    difference_N = share_a_N - share_b_N
    from_images = n_images * difference_N.var(ddof=1)
    from_seeds, seeds_df = welch_variance(wrong_a_SN.sum(axis=1), wrong_b_SN.sum(axis=1))
    # The variance of each image over the runs, S / (S - 1) · p · (1 - p), divided by S.
    interaction = (share_a_N * (1 - share_a_N)).sum() / (len(wrong_a_SN) - 1)
    interaction += (share_b_N * (1 - share_b_N)).sum() / (len(wrong_b_SN) - 1)
    variance, degrees = from_images, n_images - 1.0
    if from_seeds > BEYOND_CHANCE * interaction:
        variance += from_seeds - interaction
        # Satterthwaite: the part of the seeds has few degrees of freedom, that of the images many.
        degrees = variance**2 / (from_seeds**2 / seeds_df + from_images**2 / degrees)
    half = critical(n_networks, degrees) * np.sqrt(variance)
    mean = n_images * difference_N.mean()
    return Interval(float(mean - half), float(mean + half))


def welch_variance(a_S: NDArray[Any], b_S: NDArray[Any]) -> tuple[float, float]:
    """Return the variance of the difference of two means, and its degrees of freedom (Welch–Satterthwaite)."""
    shares = [float(values_S.var(ddof=1)) / len(values_S) for values_S in (a_S, b_S)]
    return sum(shares), _degrees(shares, [len(a_S), len(b_S)])


def _degrees(shares: list[float], n_runs: list[int]) -> float:
    return sum(shares) ** 2 / sum(share**2 / (n - 1) for share, n in zip(shares, n_runs, strict=True))


def critical(n_networks: int, degrees: float) -> float:
    """Return the half width of an interval in standard errors: Student's t for two networks, Tukey's range for more."""
    if n_networks == 2:
        return float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    return float(np.exp(_tukeys_range(n_networks)(1 / degrees)) / np.sqrt(2))


@cache
def _tukeys_range(n_networks: int) -> CubicSpline:
    """Interpolate the logarithm of Tukey's range over 1 / degrees of freedom, to 1e-4. One value takes 0.1 seconds."""
    degrees = np.array([np.inf, 100, 30, 15, 10, 7, 5, 4, 3, 2.5, 2, 1.6, 1.3, 1])
    return CubicSpline(1 / degrees, np.log([stats.studentized_range.ppf(LEVEL, n_networks, df) for df in degrees]))


def single_runs_agree(fewer_S: NDArray[Any], more_S: NDArray[Any]) -> float:
    """Return how often two runs, one of each network, have the order of the means of their errors. Ties count half."""
    return float(stats.mannwhitneyu(more_S, fewer_S).statistic / (len(fewer_S) * len(more_S)))


def mcnemar(wrong_a_SN: Wrong, wrong_b_SN: Wrong) -> NDArray[np.float64]:
    """Return the p value (S, S) of McNemar's exact test for each two runs of two networks (McNemar 1947)."""
    both_SS = wrong_a_SN.astype(float) @ wrong_b_SN.T.astype(float)  # images; exact in float64
    only_a_SS = wrong_a_SN.sum(axis=1)[:, None] - both_SS
    only_b_SS = wrong_b_SN.sum(axis=1)[None] - both_SS
    return np.minimum(1, 2 * stats.binom.cdf(np.minimum(only_a_SS, only_b_SS), only_a_SS + only_b_SS, 0.5))


def misleading_pairs(wrong_a_SN: Wrong, wrong_b_SN: Wrong) -> dict[str, float | None]:
    """Return the share of pairs of single runs with McNemar's p < 0.05: across the networks, and within each."""

    def share_within(wrong_SN: Wrong) -> float | None:
        p_P = mcnemar(wrong_SN, wrong_SN)[np.triu_indices(len(wrong_SN), k=1)]  # each pair of two runs once
        return float((p_P < 0.05).mean()) if len(p_P) else None

    return {
        "across": float((mcnemar(wrong_a_SN, wrong_b_SN) < 0.05).mean()),
        "within_a": share_within(wrong_a_SN),
        "within_b": share_within(wrong_b_SN),
    }


def power(difference: float, spreads: tuple[float, float], n_runs: tuple[int, int], n_networks: int = 2) -> float:
    """Return the probability that the interval over seeds excludes zero, for a true `difference` in images.

    `spreads` are the standard deviations of the errors between the seeds of each network.
    """
    shares = [spread**2 / n for spread, n in zip(spreads, n_runs, strict=True)]
    degrees = _degrees(shares, list(n_runs))
    limit = critical(n_networks, degrees)
    shift = difference / np.sqrt(sum(shares))
    wrong_way = np.nan_to_num(stats.nct.cdf(-limit, degrees, shift))  # NaN where it is too small for scipy
    return float(stats.nct.sf(limit, degrees, shift) + wrong_way)


def smallest_difference(spreads: tuple[float, float], n_runs: tuple[int, int], n_networks: int = 2) -> float:
    """Return the difference, in images, that these runs find with 80 % power."""
    enough = float(np.sqrt(sum(spread**2 / n for spread, n in zip(spreads, n_runs, strict=True))))
    while power(enough, spreads, n_runs, n_networks) < POWER:
        enough *= 2
    return float(brentq(lambda difference: power(difference, spreads, n_runs, n_networks) - POWER, 0, enough))


def runs_needed(difference: float, spreads: tuple[float, float], n_networks: int = 2) -> int:
    """Return how many runs of each network find `difference` with 80 % power."""
    # With known spreads (a normal distribution, not Student's), about as many would do.
    deviations = critical(n_networks, np.inf) + stats.norm.ppf(POWER)
    about = (deviations / difference) ** 2 * sum(spread**2 for spread in spreads)
    candidates = range(max(2, int(0.9 * about)), int(1.1 * about) + 20)
    enough = bisect_left(candidates, True, key=lambda n: power(difference, spreads, (n, n), n_networks) >= POWER)
    return candidates[enough]
