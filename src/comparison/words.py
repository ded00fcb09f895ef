"""The verdict in words that a student understands and a statistician accepts."""

from typing import Any

from src.comparison.statistics import BETTER, SAME, Difference, Interval


def sentences(pair: dict[str, Any], difference: Difference, a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The verdict on two networks: first the headline, then what it rests on and what it doesn't say.

    Args:
        pair: What `numbers` says of the two: verdict, images, margin, fewer_errors, mcnemar.
        difference: Errors of `a` minus errors of `b`.
        a: What `numbers` says of the first network.
        b: And of the second.
    """
    names = f"{a['name']} against {b['name']}"
    recipes = f"Compared are recipes: {_recipe(a)}, {_recipe(b)}. What the layers alone would do is not."
    seeds, images = difference.same_images, difference.other_images
    if seeds is None or images is None:
        return [f"{names}: cannot tell which is better.", *_no_interval(pair, a, b), recipes]
    margin, of_all = pair["margin"], f"images in {pair['images']:,}"
    span = f"{_signed(seeds.low)} to {_signed(seeds.high)} {of_all}"
    if pair["verdict"] == BETTER:
        better = pair["fewer_errors"]
        worse = b["name"] if better == a["name"] else a["name"]
        nearest, farthest = sorted((abs(seeds.low), abs(seeds.high)))
        headline = f"{better} is better than {worse}, by {abs(difference.mean):.1f} {of_all}."
        reason = f"With other seeds, {nearest:.1f} to {farthest:.1f} (95 % interval, on these test images)."
        images = images if difference.mean > 0 else Interval(-images.high, -images.low)  # in favour of the better
    elif pair["verdict"] == SAME:
        headline = f"{names}: no difference that matters."
        reason = (
            f"With other seeds, {a['name']} makes {span} more errors (95 % interval, on these test images), and "
            f"{margin:g} either way don't matter."
        )
    else:
        headline = f"{names}: cannot tell which is better."
        reason = (
            f"With other seeds, {a['name']} makes {span} more errors (95 % interval, on these test images): no order "
            f"is shown, nor that less than {margin:g} lie between them. That isn't to say that they are equal."
        )
    return [headline, reason, _other_images(pair["verdict"], images, margin), recipes]


def _no_interval(pair: dict[str, Any], a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    if min(len(a["runs"]), len(b["runs"])) > 1:
        return ["All runs of one network make the same number of errors, so the spread between seeds isn't known."]
    reasons = ["One run says nothing of the spread between seeds: train two or more of each, better five."]
    if pair["mcnemar"] is not None:
        reasons.append(
            f"McNemar's exact test of these two runs gives p = {pair['mcnemar']:.2g}; it speaks of the two trained "
            "networks, not of what other seeds would give."
        )
    return reasons


def _other_images(verdict: str, interval: Interval, margin: float) -> str:
    if verdict == BETTER:
        agrees = "agrees" if interval.excludes_zero else "doesn't exclude zero: on other images the order may turn"
    elif verdict == SAME:
        agrees = "agrees" if interval.within(margin) else f"reaches beyond {margin:g}: on other images it may matter"
    else:
        agrees = "excludes zero, but wasn't chosen to decide" if interval.excludes_zero else "can't tell either"
    return f"The interval for other test images too, {_signed(interval.low)} to {_signed(interval.high)}, {agrees}."


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _recipe(network: dict[str, Any]) -> str:
    return f"{network['name']} with {network['epochs']} epochs{' and dropout' if network['dropout'] else ''}"
