"""The verdicts in sentences that a student understands and a statistician accepts."""

from itertools import combinations

from src.comparison.result import Network, Pair
from src.comparison.statistics import BETTER, SAME, UNKNOWN, Interval

NO_DIFFERENCE = "there is no difference that matters between"


def sentences(pair: Pair) -> list[str]:
    """Return the verdict on two networks: the headline, the reasons, and what is compared."""
    a, b = pair.a.name, pair.b.name
    recipes = f"This compares whole recipes ({_recipe(pair.a)}; {_recipe(pair.b)}), not the architectures alone."
    difference, n_images = pair.difference, f"{len(pair.a.labels_N):,} images"
    seeds, images = difference.over_seeds, difference.over_seeds_and_images
    if seeds is None or images is None:
        return [f"{a} and {b} can't be told apart.", *_no_interval(pair), recipes]
    if pair.verdict == BETTER:
        better, worse = (network.name for network in pair.by_errors)
        if difference.mean < 0:  # count in favour of the better network
            seeds, images = Interval(-seeds.high, -seeds.low), Interval(-images.high, -images.low)
        headline = f"{better} is better than {worse}: {abs(difference.mean):.1f} fewer errors in {n_images}."
        reason = (
            f"The 95 % interval over seeds is {seeds.low:.1f} to {seeds.high:.1f} fewer errors on these test images."
        )
    else:
        same = pair.verdict == SAME
        headline = f"{NO_DIFFERENCE.capitalize()} {a} and {b}." if same else f"{a} and {b} can't be told apart."
        reason = (
            f"{a} makes {_signed(seeds.low)} to {_signed(seeds.high)} more errors in {n_images} than {b} "
            "(95 % interval over seeds, on these test images). "
        ) + (
            f"A difference of up to {pair.margin:g} doesn't matter."
            if same
            else f"This shows neither which is better nor that they differ by less than {pair.margin:g}."
        )
    return [headline, reason, _other_images(pair, images), recipes]


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
    """Return one sentence about three networks or more.

    The clauses cover every pair with its own verdict, because verdicts need not be transitive.
    """
    networks = sorted({id(n): n for pair in pairs for n in (pair.a, pair.b)}.values(), key=lambda n: n.errors_S.mean())
    names = [network.name for network in networks]
    verdicts = {frozenset((pair.a.name, pair.b.name)): pair.verdict for pair in pairs}
    better_than = {
        name: tuple(worse for worse in names[place:] if verdicts.get(frozenset((name, worse))) == BETTER)
        for place, name in enumerate(names)
    }
    clauses = []
    said: set[frozenset[str]] = set()

    def equals(group: list[str], verdict: str) -> str:
        said.update(frozenset(pair) for pair in combinations(group, 2))
        return f"{_and(group)} can't be told apart" if verdict == UNKNOWN else f"{NO_DIFFERENCE} {_and(group)}"

    for worse in filter(None, dict.fromkeys(better_than.values())):
        group = [name for name in names if better_than[name] == worse]
        among = {verdicts[frozenset(pair)] for pair in combinations(group, 2)}
        every = "both" if len(group) == 2 else "all"
        if len(among) == 1:
            clauses += [equals(group, among.pop()), f"{every} are better than {_and(worse)}"]
        else:
            clauses.append(f"{_and(group)} {'are all' if among else 'is'} better than {_and(worse)}")
    for size in range(len(names), 1, -1):
        for group in map(list, combinations(names, size)):
            among = {verdicts[frozenset(pair)] for pair in combinations(group, 2)}
            unsaid = any(frozenset(pair) not in said for pair in combinations(group, 2))
            if unsaid and len(among) == 1 and (verdict := among.pop()) != BETTER:
                clauses.append(equals(group, verdict))
    if clauses[0].startswith(NO_DIFFERENCE):
        clauses[0] = clauses[0].replace("there", "There", 1)
    return f"{'; '.join(clauses)}."


def _and(names: list[str] | tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
