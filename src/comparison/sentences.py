"""Verdicts as sentences, and numbers as text."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from src.comparison.groups import list_left_out
from src.comparison.result import FEW, Comparison, Contender, Pair
from src.comparison.statistics import BETTER, SAME, Difference, Interval, summary, verdict

ONE_RUN = "One run says nothing about the spread between seeds. Train two or more runs of each, better five."
ONLY_THE_BEST = f"With more than {FEW} networks, only the pairs of the one with the fewest errors are listed."


def summarise(comparison: Comparison) -> str:
    """Return what is left out, the table of the networks, the verdict on each pair and the notes, for a terminal."""
    contenders, pairs = comparison.contenders, comparison.pairs
    verdicts = sentences(pairs[0])
    if len(contenders) > 2:
        n_images = len(comparison.labels_N)
        verdicts = [headline(pair.a.name, pair.b.name, pair.difference, pair.margin, n_images) for pair in pairs]
        verdicts += [] if comparison.shows_all_pairs else [ONLY_THE_BEST]
        verdicts += [ONE_RUN] if any(len(contender.runs) == 1 for contender in contenders) else []
    parts = (list_left_out(comparison.left_out), [_overview(comparison)], verdicts, comparison.notes)
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _overview(comparison: Comparison) -> str:
    contenders = comparison.contenders
    seconds = [[result["train_seconds"] for result in contender.results] for contender in contenders]
    columns = {
        "network": [contender.name for contender in contenders],
        "parameters": [f"{contender.results[0]['parameters']:,}" for contender in contenders],
        "epochs": [str(contender.epochs) for contender in contenders],
        "runs": [str(len(contender.runs)) for contender in contenders],
        f"errors in {len(comparison.labels_N):,}": [
            mean_sd(summary(contender.errors_S), 1) for contender in contenders
        ],
        "training": [duration(median(of_runs)) for of_runs in seconds],
    }
    return table(columns)


def sentences(pair: Pair) -> list[str]:
    """Return the verdict on two networks: the headline, the reasons, and what is compared."""
    a, b = pair.a.name, pair.b.name
    recipes = f"This compares whole recipes ({_recipe(pair.a)}; {_recipe(pair.b)}), not the architectures alone."
    difference, n_images = pair.difference, len(pair.a.labels_N)
    first = headline(a, b, difference, pair.margin, n_images)
    if difference.over_seeds is None or difference.over_seeds_and_images is None:
        return [first, *_no_interval(pair), recipes]
    over_these = over_seeds(a, b, difference, pair.margin, f"these {n_images:,} test images")
    return [first, over_these, _other_images(pair, difference.over_seeds_and_images), recipes]


def headline(a: str, b: str, difference: Difference, margin: float, n_images: int) -> str:
    """Return the verdict on two networks in one sentence."""
    outcome = verdict(difference, margin)
    if outcome == BETTER:
        better, worse = (a, b) if difference.mean <= 0 else (b, a)
        return f"{better} is better than {worse}: {abs(difference.mean):.1f} fewer errors in {n_images:,} images."
    if outcome == SAME:
        return f"There is no difference that matters between {a} and {b}."
    return f"{a} and {b} can't be told apart."


def over_seeds(a: str, b: str, difference: Difference, margin: float, images: str) -> str:
    """Return what the interval over seeds says about two networks. It must be known."""
    assert difference.over_seeds is not None
    low, high = difference.over_seeds.low, difference.over_seeds.high
    outcome = verdict(difference, margin)
    if outcome == BETTER:  # count in favour of the better network
        fewer, more = sorted([abs(low), abs(high)])
        return f"The 95 % interval over seeds is {fewer:.1f} to {more:.1f} fewer errors in {images}."
    shows = (
        f"A difference of up to {margin:g} doesn't matter."
        if outcome == SAME
        else f"This shows neither which is better nor that they differ by less than {margin:g}."
    )
    interval = f"{_signed(low)} to {_signed(high)} more errors in {images} than {b}"
    return f"{a} makes {interval} (95 % interval over seeds). {shows}"


def _no_interval(pair: Pair) -> list[str]:
    if min(len(pair.a.runs), len(pair.b.runs)) > 1:
        return ["All runs of one network make the same number of errors, so the spread between seeds is unknown."]
    lines = [ONE_RUN]
    if pair.mcnemar is not None:
        lines.append(
            f"McNemar's exact test of these two runs gives p = {pair.mcnemar:.2g}. It compares the two trained "
            "networks; it doesn't say what other seeds would give."
        )
    return lines


def _other_images(pair: Pair, interval: Interval) -> str:
    if pair.verdict == BETTER:
        interval = Interval(-interval.high, -interval.low)  # count in favour of the better network, which is `a`
        agrees = "agrees" if interval.excludes_zero else "includes zero: the order may be different on other images"
    elif pair.verdict == SAME:
        within = interval.within(pair.margin)
        agrees = "agrees" if within else f"reaches beyond {pair.margin:g}: the difference may matter on other images"
    else:
        agrees = "excludes zero, but it doesn't decide" if interval.excludes_zero else "shows no more"
    return f"The interval over seeds and test images, {_signed(interval.low)} to {_signed(interval.high)}, {agrees}."


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _recipe(contender: Contender) -> str:
    return f"{contender.name}: {contender.epochs} epochs{' and dropout' if contender.has_dropout else ''}"


def table(columns: Mapping[str, Sequence[str]]) -> str:
    """Align columns for a terminal, each with its title: the first one to the left, the others to the right."""
    aligned: list[list[str]] = []
    for title, cells in columns.items():
        width, side = max(map(len, [title, *cells])), ">" if aligned else "<"
        aligned.append([f"{cell:{side}{width}}" for cell in (title, *cells)])
    return "\n".join("  ".join(row) for row in zip(*aligned, strict=True))


def mean_sd(summary: Mapping[str, Any], digits: int, factor: float = 1) -> str:
    """Return a `statistics.summary` as ``84.6 ± 6.9``; of a single run, which has no standard deviation, the mean."""
    if math.isnan(summary["mean"]):
        return "not known"
    mean = f"{factor * summary['mean']:,.{digits}f}"
    return mean if summary["sd"] is None else f"{mean} ± {factor * summary['sd']:,.{digits}f}"


def duration(seconds: float) -> str:
    """Return minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
