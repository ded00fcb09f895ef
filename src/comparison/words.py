"""Verdicts as sentences, and numbers as text."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from src.comparison.result import Network, Pair
from src.comparison.statistics import BETTER, SAME, Difference, Interval, verdict

NO_DIFFERENCE = "there is no difference that matters between"


def sentences(pair: Pair) -> list[str]:
    """Return the verdict on two networks: the headline, the reasons, and what is compared."""
    names = pair.a.name, pair.b.name
    recipes = f"This compares whole recipes ({_recipe(pair.a)}; {_recipe(pair.b)}), not the architectures alone."
    difference, n_images = pair.difference, len(pair.a.labels_N)
    first = headline(*names, difference, pair.margin, n_images)
    if difference.over_seeds is None or difference.over_seeds_and_images is None:
        return [first, *_no_interval(pair), recipes]
    reason = over_seeds(*names, difference, pair.margin, f"these {n_images:,} test images")
    return [first, reason, _other_images(pair, difference.over_seeds_and_images), recipes]


def headline(a: str, b: str, difference: Difference, margin: float, n_images: int) -> str:
    """Return the verdict on two networks in one sentence."""
    found = verdict(difference, margin)
    if found == BETTER:
        better, worse = (a, b) if difference.mean <= 0 else (b, a)
        return f"{better} is better than {worse}: {abs(difference.mean):.1f} fewer errors in {n_images:,} images."
    return f"{NO_DIFFERENCE.capitalize()} {a} and {b}." if found == SAME else f"{a} and {b} can't be told apart."


def over_seeds(a: str, b: str, difference: Difference, margin: float, images: str) -> str:
    """Return what the interval over seeds says about two networks. It must be known."""
    assert difference.over_seeds is not None
    low, high = difference.over_seeds.low, difference.over_seeds.high
    found = verdict(difference, margin)
    if found == BETTER:  # count in favour of the better network
        fewer, more = sorted([abs(low), abs(high)])
        return f"The 95 % interval over seeds is {fewer:.1f} to {more:.1f} fewer errors in {images}."
    shows = (
        f"A difference of up to {margin:g} doesn't matter."
        if found == SAME
        else f"This shows neither which is better nor that they differ by less than {margin:g}."
    )
    interval = f"{_signed(low)} to {_signed(high)} more errors in {images} than {b}"
    return f"{a} makes {interval} (95 % interval over seeds). {shows}"


def _no_interval(pair: Pair) -> list[str]:
    if min(len(pair.a.runs), len(pair.b.runs)) > 1:
        return ["All runs of a network make the same number of errors, so the spread between seeds is unknown."]
    reasons = ["One run says nothing about the spread between seeds. Train two or more runs of each, better five."]
    if pair.mcnemar is not None:
        reasons.append(
            f"McNemar's exact test of these two runs gives p = {pair.mcnemar:.2g}. It compares the two trained "
            "networks; it doesn't say what other seeds would give."
        )
    return reasons


def _other_images(pair: Pair, interval: Interval) -> str:
    if pair.verdict == BETTER:
        if pair.difference.mean < 0:  # count in favour of the better network
            interval = Interval(-interval.high, -interval.low)
        agrees = "agrees" if interval.excludes_zero else "includes zero: the order may be different on other images"
    elif pair.verdict == SAME:
        within = interval.within(pair.margin)
        agrees = "agrees" if within else f"reaches beyond {pair.margin:g}: the difference may matter on other images"
    else:
        agrees = "excludes zero, but it doesn't decide" if interval.excludes_zero else "shows no more"
    return f"The interval over seeds and test images, {_signed(interval.low)} to {_signed(interval.high)}, {agrees}."


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _recipe(network: Network) -> str:
    return f"{network.name}: {network.epochs} epochs{' and dropout' if network.has_dropout else ''}"


def ranking(pairs: list[Pair]) -> str:
    """Return a sentence about three networks or more that covers every pair: verdicts need not be transitive."""
    networks = sorted({id(n): n for pair in pairs for n in (pair.a, pair.b)}.values(), key=lambda n: n.errors_S.mean())
    place = {id(network): number for number, network in enumerate(networks)}
    verdicts = {tuple(sorted((place[id(pair.a)], place[id(pair.b)]))): pair.verdict for pair in pairs}
    return ranking_of([network.name for network in networks], verdicts)


def ranking_of(networks: list[str], verdicts: Mapping[Any, str]) -> str:
    """Return the sentence from names, in the order of their mean errors, and the verdict of each pair (a < b)."""
    # For each network, those that it is better than.
    worse = [tuple(b for b in range(a + 1, len(networks)) if verdicts[a, b] == BETTER) for a in range(len(networks))]
    clauses = []
    said: set[tuple[int, ...]] = set()

    def names(group: Sequence[int]) -> str:
        *first, last = (networks[number] for number in group)
        return f"{', '.join(first)} and {last}" if first else last

    def equal(group: Sequence[int]) -> str | None:
        """Return the clause about a group without any order, if all its pairs have the same verdict."""
        inside = list(combinations(group, 2))
        found = {verdicts[pair] for pair in inside}
        if len(found) != 1 or BETTER in found or said.issuperset(inside):
            return None
        said.update(inside)
        return f"{NO_DIFFERENCE} {names(group)}" if SAME in found else f"{names(group)} can't be told apart"

    for those in filter(None, dict.fromkeys(worse)):
        group = [number for number, others in enumerate(worse) if others == those]
        if clause := equal(group):
            clauses += [clause, f"{'both' if len(group) == 2 else 'all'} are better than {names(those)}"]
        else:
            clauses.append(f"{names(group)} {'are all' if len(group) > 1 else 'is'} better than {names(those)}")
    groups = (group for size in range(len(networks), 1, -1) for group in combinations(range(len(networks)), size))
    clauses += filter(None, map(equal, groups))
    sentence = "; ".join(clauses) + "."
    return sentence[0].upper() + sentence[1:] if sentence.startswith(NO_DIFFERENCE) else sentence


def table(columns: Mapping[str, Sequence[str]]) -> str:
    """Align columns for a terminal, each with its title: the first one to the left, the others to the right."""
    aligned: list[list[str]] = []
    for title, cells in columns.items():
        width, side = max(map(len, [title, *cells])), ">" if aligned else "<"
        aligned.append([f"{cell:{side}{width}}" for cell in (title, *cells)])
    return "\n".join("  ".join(row) for row in zip(*aligned, strict=True))


def mean_sd(summary: Mapping[str, Any], digits: int, factor: float = 1) -> str:
    """Return a `statistics.summary` as ``84.6 ± 6.9``; of a single run, which has no standard deviation, the mean."""
    mean = f"{factor * summary['mean']:,.{digits}f}"
    return mean if summary["sd"] is None else f"{mean} ± {factor * summary['sd']:,.{digits}f}"


def duration(seconds: float) -> str:
    """Return minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
