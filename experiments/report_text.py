"""What a report says in words and how it writes numbers: plain sentences computed from the figures, never chosen."""

import math
from collections.abc import Sequence

from inmaterio.devices.costs import Cost
from inmaterio.experiments.energy import Quantiles
from inmaterio.experiments.metrics import Interval
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
        sides = "both figures" if all(partial) else f"the {name.lower()} figure" if partial[0] else f"the figure of {other}"
        by += f" Partial: events without a cost are missing from {sides}, so it is a lower bound."
    if found == "undecided":
        return f"{by} {'No verdict' if any(partial) else 'The range includes 1: these constants do not say who takes less'}.", ""
    return by, f"{name} {found}."


def accuracy_text(entry: Entry, other: Entry, against: Versus) -> str:
    """Whether the two stand at equal accuracy, with both errors."""
    metric = entry.row.metric
    pair = f"{error_text(entry.row.test_error_mean, metric)} against {error_text(other.row.test_error_mean, metric)} error"
    return f"at equal accuracy within the spread ({pair})" if against.equal else f"not at equal accuracy ({pair})"


def findings(entries: Sequence[Entry]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each rule that is not a control: its name and place, and (topic, sentences, verdict) about it."""
    found = []
    for entry in entries:
        if entry.row.control or entry.baseline:
            continue
        row, topics = entry.row, []
        base, readout = find_baseline(entry, entries), find_readout(entry, entries)
        error = [spread_text(row.test_error_mean, row.test_error_std, len(entry.runs), row.metric) + "."]
        for other in (base, readout):
            gap = None if other is None else versus(entry, other).error
            if other is not None and gap is not None:
                error.append(_difference_sentence(gap, row.metric, other.label))
        topics.append(("Test error", " ".join(error), ""))
        if base is not None:
            against = versus(entry, base)
            accuracy = accuracy_text(entry, base, against)
            name = entry.label if entry.digital else "Analog"
            for topic, ratio, partial in (
                ("Training energy", against.train, against.partial_train),
                ("Inference energy", against.inference, against.partial_inference),
            ):
                topics.append((topic, *energy_sentence(name, ratio, base.label, accuracy, partial)))
        if row.unsettled_fraction:
            share = f"{100 * row.unsettled_fraction:.2g} %"
            sentence = f"{share} of the free phases of the last epoch ended above the residual that counts as settled."
            topics.append(("Unsettled", sentence, ""))
        found.append((f"{entry.label} on {row.substrate}, {row.data}", topics))
    return found


def headlines(entries: Sequence[Entry]) -> list[str]:
    """One sentence for training and one for inference: in how many lines analog loses to the digital baseline, or wins."""
    analog = [entry for entry in entries if not entry.row.control and not entry.digital]
    pairs = [(entry, find_baseline(entry, entries)) for entry in analog]
    held = [versus(entry, base) for entry, base in pairs if base is not None]
    if not held:
        return []
    sentences = []
    for scope, found in (
        ("Energy of training", [verdict(one.train, one.partial_train) for one in held]),
        ("Energy of inference", [verdict(one.inference, one.partial_inference) for one in held]),
    ):
        parts = [f"analog loses to the digital baseline in {found.count('loses')} of {len(held)} lines"]
        parts.append(f"wins in {found.count('wins')}")
        parts += [f"no verdict in {found.count('undecided')}"] if "undecided" in found else []
        parts += [f"{NO_FIGURE} in {found.count(NO_FIGURE)}"] if NO_FIGURE in found else []
        sentences.append(f"{scope}: {', '.join(parts)}.")
    equal = sum(one.equal for one in held)
    sentences.append(f"Equal accuracy within the spread holds in {equal} of {len(held)}.")
    return sentences


def _difference_sentence(gap: Interval, metric: str, other: str) -> str:
    size = f"{points(gap.estimate, metric)} {points_unit(metric)}"
    if gap.low is None or gap.high is None:
        return f"Against {other}: {size} from one pair, which decides nothing."
    interval = f"95 % interval {interval_text(gap, metric)}, {gap.count} pairs"
    if not gap.decides:
        return f"Not told apart from {other}: {size} ({interval})."
    return f"{'Worse' if gap.estimate > 0 else 'Better'} than {other}: {size} ({interval})."
