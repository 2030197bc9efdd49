"""What a report says in words and how it writes numbers: plain sentences computed from the figures, never chosen."""

import math
from collections.abc import Sequence

from inmaterio.devices.costs import Cost
from inmaterio.experiments.digital_inference import INT8_NOTE, Variant
from inmaterio.experiments.energy import Quantiles
from inmaterio.experiments.metrics import DECIDING_PAIRS, EQUAL_MARGIN, Interval
from inmaterio.experiments.other_predictors import spreads_of
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report_entries import Entry, Versus, find_baseline, find_readout, versus

NO_FIGURE = "no figure"
"""Stands wherever there is nothing to multiply: never 0."""


def error_text(value: float | None, metric: str, digits: int = 2) -> str:
    """An error rate in percent, another metric as it is."""
    if value is None or not math.isfinite(value):
        return NO_FIGURE
    return f"{100 * value:.{digits}f} %" if metric == "error" else f"{value:.{digits + 1}f}"


def spread_text(mean: float, std: float | None, count: int, metric: str) -> str:
    """``2.31 % ± 0.12 % (n = 5)``; without a spread for a single value."""
    if not math.isfinite(mean):
        return NO_FIGURE
    middle = "" if std is None else f" ± {error_text(std, metric)}"
    return f"{error_text(mean, metric)}{middle} (n = {count})"


def points(value: float, metric: str) -> str:
    """A signed difference: percentage points for error rates."""
    return (f"{100 * value:+.2f}" if metric == "error" else f"{value:+.3f}").replace("-", "−")


def points_unit(metric: str) -> str:
    return "percentage points" if metric == "error" else metric


def interval_text(interval: Interval, metric: str) -> str:
    """``−1.20 to +0.40``; says so where one pair gives no interval."""
    if interval.low is None or interval.high is None:
        return "one pair: no interval"
    return f"{points(interval.low, metric)} to {points(interval.high, metric)}"


def margin_text(metric: str) -> str:
    """The margin within which two errors count as equal."""
    return f"{100 * EQUAL_MARGIN:g} percentage point" if metric == "error" else f"{EQUAL_MARGIN:g} {metric}"


def standing_text(gap: Interval, pair: str) -> str:
    """What an interval says, in the words of a table; and why, where pairs are too few."""
    if gap.count < DECIDING_PAIRS:
        return f"{gap.count} {pair}{'' if gap.count == 1 else 's'}: decides nothing"
    return gap.standing()


def range_text(interval: Interval | None, metric: str) -> str:
    """``0.75 to 3.19 %``; empty where there is no interval."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{100 * interval.low:.2f} to {error_text(interval.high, metric)}"


def joules(figure: Quantiles | None) -> str:
    """The P50."""
    return NO_FIGURE if figure is None else engineering(figure.P50, "J")


def joules_range(figure: Quantiles | None) -> str:
    """P10 to P90."""
    return "" if figure is None else f"{engineering(figure.P10, 'J')} – {engineering(figure.P90, 'J')}"


def times(value: float) -> str:
    """A ratio with two or three figures."""
    if value >= 100 or value < 0.001:
        return f"{value:.2e}" if value >= 1e5 or value < 0.001 else f"{value:,.0f}".replace(",", " ")
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def cost_text(value: float, cost: Cost) -> str:
    """A cost with its unit: joules per event, watts, or a plain factor."""
    return f"{value:.3g}" if cost.unit == "1" else engineering(value, cost.unit)


def count_text(amount: float, event: str) -> str:
    """An amount of an event in the event's own unit."""
    if event == "ohmic_joule":
        return engineering(amount, "J")
    if event == "amplifier_second":
        return engineering(amount, "s")
    return f"{amount:,.0f}".replace(",", " ") if amount < 1e7 else engineering(amount, "")


def verdict(figure: Quantiles | None, partial: tuple[bool, bool]) -> str:
    """What a ratio of joules says: ``"loses"``, ``"wins"``, ``"undecided"`` or `NO_FIGURE`.

    An order is claimed only where P10 to P90 leaves out 1. A figure from which events are missing is a lower bound: a side
    does not win with a lower bound, nor lose to one.

    Parameters
    ----------
    figure : Quantiles or None
        This side over the other.
    partial : (bool, bool)
        Whether events are missing from this side, and from the other.
    """
    if figure is None:
        return NO_FIGURE
    if figure.P10 > 1.0 and not partial[1]:
        return "loses"
    return "wins" if figure.P90 < 1.0 and not partial[0] else "undecided"


def energy_sentence(
    name: str, figure: Quantiles | None, other: str, accuracy: str, partial: tuple[bool, bool]
) -> tuple[str, str]:
    """Who takes more joules, from the ratio drawn in pairs: (the sentence, the verdict)."""
    if figure is None:
        return f"{NO_FIGURE} against {other}.".capitalize(), ""
    by = f"{times(figure.P50)} times that of {other} (P10–P90: {times(figure.P10)} to {times(figure.P90)}), {accuracy}."
    found = verdict(figure, partial)
    if any(partial):
        sides = "both figures" if all(partial) else f"the figure of {name.lower() if partial[0] else other}"
        by += f" Partial: events without a cost are missing from {sides}, so it is a lower bound."
    if found == "undecided":
        return f"{by} {'No verdict' if any(partial) else 'The range includes 1: these constants do not say who takes less'}.", ""
    return by, f"{name} {found}."


def accuracy_text(entry: Entry, other: Entry, against: Versus) -> str:
    """How the errors of the two stand, in the words used everywhere on a page, with both errors."""
    metric = entry.row.metric
    pair = f"{error_text(entry.row.test_error_mean, metric)} against {error_text(other.row.test_error_mean, metric)} error"
    words = {
        "equal": f"at equal accuracy within {margin_text(metric)}",
        "worse": "at worse accuracy",
        "better": "at better accuracy",
    }
    return f"{words.get(against.standing, 'accuracy not told apart')} ({pair})"


def variants_sentence(name: str, against: Versus, other: str) -> tuple[str, str]:
    """An inference held against the best and the worst way to run the digital one: (the sentence, the verdict)."""
    ends = _extremes(against)
    if ends is None:
        return "", ""
    (best, least), (worst, most) = ends
    parts = [
        f"{times(figure.P50)} times (P10–P90: {times(figure.P10)} to {times(figure.P90)}) that of {other} in {words}, "
        f"{variant.label}"
        for words, variant, figure in (("its best case", best, least), ("its worst", worst, most))
    ]
    note = f" int8 is {INT8_NOTE}." if "int8" in (best.precision, worst.precision) else ""
    found = [verdict(figure, against.partial_inference) for figure in (least, most)]
    said = [f"{name.lower()} {one}" if one in ("loses", "wins") else "no verdict" for one in found]
    told = f"Against its best case {said[0]}, against its worst {said[1]}."
    return f"{'; '.join(parts)}.{note}", told


def batch_sentence(batch: float) -> str:
    """What batch hides in a figure per row."""
    return f"The figure of the run reads the weights once per {batch:g} rows." if batch != 1 else ""


def findings(entries: Sequence[Entry]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each rule that is not a control: its name and place, and (topic, sentences, verdict) about it."""
    found = []
    for entry in entries:
        if entry.row.control or entry.baseline:
            continue
        row, topics = entry.row, []
        base, readout = find_baseline(entry, entries), find_readout(entry, entries)
        error = [spread_text(row.test_error_mean, row.test_error_std, len(entry.runs), row.metric) + "."]
        for name, one in spreads_of([run.other_errors for run in entry.runs]).items():
            error.append(f"Predicted otherwise, {name}: {spread_text(one.mean, one.std, len(entry.runs), row.metric)}.")
        if rows_range := range_text(entry.wilson, row.metric):
            error.append(f"The {entry.test_rows} test rows alone leave {rows_range} (95 %).")
        rules = (
            one for one in entries if not one.row.control and one.row.substrate == row.substrate and one.row.data == row.data
        )
        first = next(rules, None)
        for other in (base, readout, None if first is entry else first):
            held = None if other is None else versus(entry, other)
            if other is not None and held is not None and held.error is not None:
                error.append(_difference_sentence(held, held.error, row.metric, other.label))
        topics.append(("Test error", " ".join(error), ""))
        if base is not None:
            against = versus(entry, base)
            accuracy = accuracy_text(entry, base, against)
            name = entry.label if entry.digital else "The substrate"
            topics.append(("Training energy", *energy_sentence(name, against.train, base.label, accuracy, against.partial_train)))
            said, told = energy_sentence(name, against.inference, base.label, accuracy, against.partial_inference)
            if base.variants:
                said = f"As run: {said} {batch_sentence(base.variants[0].batch)}".strip()
            topics.append(("Inference energy", said, told))
            said, told = variants_sentence(name, against, base.label)
            if said:
                topics.append(("Inference, other ways to run the digital network", said, told))
        if row.unsettled_fraction:
            share = f"{100 * row.unsettled_fraction:.2g} %"
            sentence = (
                f"{share} of the samples of the last epoch had a phase that ended above the residual that counts as settled."
            )
            topics.append(("Unsettled", sentence, ""))
        if row.symmetry is not None:
            sentence = f"|S| / (|S| + |A|) of the Jacobian is {row.symmetry:.3f}, mean over the updates of the last epoch."
            topics.append(("Symmetry", sentence, ""))
        found.append((f"{entry.label} on {row.substrate}, {row.data}", topics))
    return found


def headlines(entries: Sequence[Entry]) -> list[str]:
    """Sentences for training, inference and accuracy: in how many lines a substrate loses to the digital baseline, or wins."""
    physical = [entry for entry in entries if not entry.row.control and not entry.digital]
    pairs = [(entry, find_baseline(entry, entries)) for entry in physical]
    held = [versus(entry, base) for entry, base in pairs if base is not None]
    if not held:
        return []
    scopes = [
        ("Energy of training", [verdict(one.train, one.partial_train) for one in held]),
        ("Energy of inference, as run", [verdict(one.inference, one.partial_inference) for one in held]),
    ]
    extremes = [_extremes(one) for one in held]
    for place, words in enumerate(("best", "worst")):
        sides = [(ends[place], one.partial_inference) for ends, one in zip(extremes, held, strict=True) if ends is not None]
        if len(sides) == len(held):
            label = " or ".join(dict.fromkeys(side[0].label for side, _ in sides))
            scope = f"Energy of inference, baseline in its {words} case ({label})"
            scopes.append((scope, [verdict(side[1], partial) for side, partial in sides]))
    sentences = []
    for scope, found in scopes:
        parts = [f"the substrate loses to the digital baseline in {found.count('loses')} of {len(held)} lines"]
        parts.append(f"wins in {found.count('wins')}")
        parts += [f"no verdict in {found.count('undecided')}"] if "undecided" in found else []
        parts += [f"{NO_FIGURE} in {found.count(NO_FIGURE)}"] if NO_FIGURE in found else []
        sentences.append(f"{scope}: {', '.join(parts)}.")
    if any("int8" in ends[0][0].precision for ends in extremes if ends is not None):
        sentences.append(f"The int8 baseline is {INT8_NOTE}.")
    metric = physical[0].row.metric
    counts = [(name, sum(one.standing == name for one in held)) for name in ("equal", "better", "worse", "not told apart")]
    told = ", ".join(f"{name} in {count}" for name, count in counts if count)
    sentences.append(f"Accuracy against the baseline (equal: within {margin_text(metric)}): {told} of {len(held)}.")
    return sentences + resting_sentences(physical)


def _extremes(held: Versus) -> tuple[tuple[Variant, Quantiles], tuple[Variant, Quantiles]] | None:
    """The digital variant that costs least, and that which costs most, each with the ratio to it."""
    ratios = [(variant, figure) for variant, figure in held.variants if figure is not None]
    if len(ratios) < 2:
        return None
    return max(ratios, key=lambda one: one[1].P50), min(ratios, key=lambda one: one[1].P50)


def resting_sentences(physical: Sequence[Entry]) -> list[str]:
    """On which single constant the totals of substrates rest, where one dominates them, and how wide its range is."""
    resting: dict[Cost, dict[str, int]] = {}
    for scope, energies in (("training", [one.train for one in physical]), ("inference", [one.inference for one in physical])):
        for energy in energies:
            cost = None if energy is None else energy.rests_on
            if cost is not None:
                counts = resting.setdefault(cost, {})
                counts[scope] = counts.get(scope, 0) + 1
    sentences = []
    for cost, counts in resting.items():
        where = " and ".join(f"of {scope} in {count} of {len(physical)} lines" for scope, count in counts.items())
        marks = f", {cost.status}" if cost.marked else ""
        sentences.append(
            f"The substrate's total {where} rests on one constant: {cost.quantity}; {cost_text(cost.low, cost)} to "
            f"{cost_text(cost.high, cost)}, a {times(cost.high / cost.low)}-fold range{marks}."
        )
    return sentences


def _difference_sentence(held: Versus, gap: Interval, metric: str, other: str) -> str:
    size = f"{points(gap.estimate, metric)} {points_unit(metric)}"
    pairs = f"{gap.count} {held.pair}{'' if gap.count == 1 else 's'}"
    if gap.count < DECIDING_PAIRS:
        return f"Against {other}: {size} from {pairs}, which decide{'s' if gap.count == 1 else ''} nothing."
    interval = f"95 % interval {interval_text(gap, metric)}, pairs are {pairs}"
    words = {
        "equal": f"Equal to {other} within {margin_text(metric)}",
        "worse": f"Worse than {other}",
        "better": f"Better than {other}",
    }
    return f"{words.get(held.standing, f'Not told apart from {other}')}: {size} ({interval})."
