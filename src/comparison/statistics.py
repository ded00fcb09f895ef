"""What can be said about the difference of two networks from a few runs of each. Errors are counted in test images."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.95
POWER = 0.80
# How much the spread between few seeds must exceed what images explain to be counted: chosen in simulations, in which
# a lower value covers too often where seeds have no effect of their own, and a higher one too seldom where they have.
BEYOND_CHANCE = 1.25
DIFFERENCES_OF_INTEREST = (5, 7, 10, 20)  # images in 10,000; 7 is the published difference

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
    """The first network's mean errors minus the second's. Without two runs of each there are no intervals."""

    mean: float
    same_images: Interval | None  # other seeds
    other_images: Interval | None  # other seeds and other images of the same kind


def compare(wrong: list[Wrong]) -> dict[tuple[int, int], Difference]:
    """The difference of the mean errors of each pair of networks, with intervals that hold for all pairs together."""
    errors = [wrong_SN.sum(axis=1) for wrong_SN in wrong]
    same_images = seeds(errors)
    return {
        (a, b): Difference(
            float(errors[a].mean() - errors[b].mean()),
            interval,
            seeds_and_images(wrong[a], wrong[b], len(wrong)) if interval else None,
        )
        for (a, b), interval in same_images.items()
    }


def seeds(values: list[NDArray[Any]]) -> dict[tuple[int, int], Interval | None]:
    """Interval of the difference of means for other seeds, for each pair; None where a spread is not known.

    For two networks this is Welch's interval (Welch 1947), for more that of Games and Howell (1976).
    """
    pairs = list(combinations(range(len(values)), 2))
    if not all(len(values_S) > 1 and values_S.var() > 0 for values_S in values):
        return dict.fromkeys(pairs)
    if len(values) == 2:
        welch = stats.ttest_ind(*values, equal_var=False).confidence_interval(LEVEL)
        return {(0, 1): Interval(float(welch.low), float(welch.high))}
    found = stats.tukey_hsd(*values, equal_var=False).confidence_interval(LEVEL)
    return {(a, b): Interval(float(found.low[a, b]), float(found.high[a, b])) for a, b in pairs}


def seeds_and_images(wrong_a_SN: Wrong, wrong_b_SN: Wrong, networks: int = 2) -> Interval:
    """Interval of the difference for other seeds and other test images.

    Each run meets each image, so seeds and images are crossed (Owen 2007, "The pigeonhole bootstrap").
    The variance is that of the images plus what the seeds vary beyond it: the images' part already
    counts the interaction, by which each run is wrong about other images. In simulations the interval
    covers the truth 93 to 97 times in 100, for 3, 5 and 10 runs (tests/comparison/test_statistics.py).
    """
    images = wrong_a_SN.shape[1]
    difference_N = wrong_a_SN.mean(axis=0) - wrong_b_SN.mean(axis=0)
    from_images = images * difference_N.var(ddof=1)
    from_seeds, seeds_df = welch_variance(wrong_a_SN.sum(axis=1), wrong_b_SN.sum(axis=1))
    interaction = sum(wrong_SN.var(axis=0, ddof=1).sum() / len(wrong_SN) for wrong_SN in (wrong_a_SN, wrong_b_SN))
    variance, degrees = from_images, images - 1.0
    if from_seeds > BEYOND_CHANCE * interaction:
        variance += from_seeds - interaction
        # Satterthwaite: the part from the seeds has few degrees of freedom, that from the images many.
        degrees = variance**2 / (from_seeds**2 / seeds_df + from_images**2 / degrees)
    half = critical(networks, degrees) * np.sqrt(variance)
    mean = images * difference_N.mean()
    return Interval(float(mean - half), float(mean + half))


def welch_variance(a_S: NDArray[Any], b_S: NDArray[Any]) -> tuple[float, float]:
    """The variance of the difference of two means, and its degrees of freedom (Welch–Satterthwaite)."""
    shares = [values_S.var(ddof=1) / len(values_S) for values_S in (a_S, b_S)]
    return sum(shares), _degrees(shares, [len(a_S), len(b_S)])


def _degrees(shares: list[float], runs: list[int]) -> float:
    return sum(shares) ** 2 / sum(share**2 / (n - 1) for share, n in zip(shares, runs, strict=True))


def critical(networks: int, degrees: float) -> float:
    """How many standard errors an interval reaches: Student's t for two networks, Tukey's range for more."""
    if networks == 2:
        return float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    return float(stats.studentized_range.ppf(LEVEL, networks, degrees) / np.sqrt(2))


# --- One run of each -----------------------------------------------------------------------------------


def single_runs_agree(fewer_S: NDArray[Any], more_S: NDArray[Any]) -> float:
    """How often one run of each, drawn at random, has the order of the means; ties count half.

    Args:
        fewer_S: Errors of each run of the network that makes fewer on average.
        more_S: Those of the other.
    """
    return float(stats.mannwhitneyu(more_S, fewer_S).statistic / (len(fewer_S) * len(more_S)))


def mcnemar(wrong_a_N: NDArray[np.bool_], wrong_b_N: NDArray[np.bool_]) -> float:
    """The p value of McNemar's exact test of two runs on the same images (McNemar 1947)."""
    only_a, only_b = int((wrong_a_N & ~wrong_b_N).sum()), int((wrong_b_N & ~wrong_a_N).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def misleading_pairs(wrong_a_SN: Wrong, wrong_b_SN: Wrong) -> dict[str, float | None]:
    """The share of pairs of single runs with McNemar's p < 0.05: across the networks, and within each."""

    def share(pairs: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float | None:
        return float(np.mean([mcnemar(*pair) < 0.05 for pair in pairs])) if pairs else None

    return {
        "across": share(list(product(wrong_a_SN, wrong_b_SN))),
        "within_a": share(list(combinations(wrong_a_SN, 2))),
        "within_b": share(list(combinations(wrong_b_SN, 2))),
    }


# --- Power ---------------------------------------------------------------------------------------------


def power(difference: float, spreads: tuple[float, float], runs: tuple[int, int], networks: int = 2) -> float:
    """The chance that the interval over seeds excludes zero, if the true difference is `difference`.

    Args:
        difference: In images.
        spreads: Standard deviation of the errors between the seeds of each network.
        runs: Runs of each.
        networks: How many networks are compared.
    """
    shares = [spread**2 / n for spread, n in zip(spreads, runs, strict=True)]
    degrees = _degrees(shares, list(runs))
    limit = critical(networks, degrees)
    shift = difference / np.sqrt(sum(shares))
    wrong_way = np.nan_to_num(stats.nct.cdf(-limit, degrees, shift))  # nan where it is too small for scipy
    return float(stats.nct.sf(limit, degrees, shift) + wrong_way)


def smallest_difference(spreads: tuple[float, float], runs: tuple[int, int], networks: int = 2) -> float:
    """The difference, in images, that these runs would find with 80 % power."""
    enough = float(np.sqrt(sum(spread**2 / n for spread, n in zip(spreads, runs, strict=True))))
    while power(enough, spreads, runs, networks) < POWER:
        enough *= 2
    return float(brentq(lambda difference: power(difference, spreads, runs, networks) - POWER, 0, enough))


def runs_needed(difference: float, spreads: tuple[float, float], networks: int = 2) -> int:
    """Runs of each network that find `difference` with 80 % power."""

    def is_enough(runs: int) -> bool:
        return power(difference, spreads, (runs, runs), networks) >= POWER

    most = 2
    while not is_enough(most):
        most *= 2
    return 2 + bisect_left(range(2, most), True, key=is_enough)


# --- Verdict -------------------------------------------------------------------------------------------

BETTER, SAME, UNKNOWN = "better", "no difference that matters", "cannot tell"


def verdict(difference: Difference, margin: float) -> str:
    """One of three, from the interval over seeds. A wide interval is never taken for equality.

    Args:
        difference: Of the two networks.
        margin: The largest difference, in images, that doesn't matter.
    """
    if difference.same_images is None:
        return UNKNOWN
    if difference.same_images.excludes_zero:
        return BETTER
    return SAME if difference.same_images.within(margin) else UNKNOWN
