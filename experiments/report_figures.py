"""Figures of a report from its entries: learning curves, cosines, energy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inmaterio.devices.costs import BOUNDARIES
from inmaterio.experiments.energy import EnergyEstimate
from inmaterio.experiments.energy_plots import Bar, Range, ranges_svg, stacked_svg, tornado_svg
from inmaterio.experiments.plots import HATCHES, Curve, Look, curves_svg, engineering, swatch_svg
from inmaterio.experiments.report_entries import Entry

PARTS_SHOWN = 12
"""Components drawn apart in a stacked bar; the rest is one part."""

CONSTANTS_SHOWN = 6
"""Constants in a ranking."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: its SVG (empty when there is nothing to draw) and what stands below it."""

    svg: str
    caption: str = ""


def legend(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(SVG, label) of each entry, once per label."""
    return [(swatch_svg(look), label) for label, look in {entry.label: entry.look for entry in entries}.items()]


def learning_panels(entries: Sequence[Entry], name: str) -> list[Panel]:
    """Error on the training data as they came by, against epochs, device passes, modelled seconds and joules."""
    first = entries[0]
    percent = first.row.metric == "error"
    chance = next((entry.row.chance_error for entry in entries if entry.row.chance_error is not None), None)
    y_label = f"{'error' if percent else first.row.metric} on TRAINING rows"
    panels = []
    for key, x_label, unit, kind, without in (
        ("epoch", "epochs", "", "linear", "No curve"),
        ("device_passes", "device passes", "", "auto", "No device passes in training"),
        ("modelled_time_s", "modelled time", "s", "auto", "No modelled time"),
        ("joules", "energy of training, P50", "J", "log", "No figure"),
    ):
        curves, absent = [], []
        for entry in entries:
            values = entry.curve("train_error")
            if key == "joules":
                x = None if entry.spent is None else entry.spent[: values.shape[1], 1]
            else:
                x = entry.curve(key).mean(axis=0)
            usable = x is not None and bool(np.any(np.isfinite(x) & (x > 0)))
            if x is None or not usable or not np.isfinite(values).any():
                absent.append(entry.label)
                continue
            mean = values.mean(axis=0)
            wide = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
            curves.append(Curve(entry.label, entry.look, x, mean, np.maximum(mean - wide, 0.0), mean + wide))
        ends = [float(curve.x[-1]) for curve in curves if curve.x[-1] > 0]
        logarithmic = kind == "log" or (kind == "auto" and bool(ends) and max(ends) > 5.0 * min(ends))
        svg = curves_svg(
            curves,
            name=f"{name}-{key.replace('_', '-')}",
            title=f"{y_label} against {x_label}",
            x_label=x_label,
            y_label=y_label,
            x_unit=unit,
            logarithmic=logarithmic,
            percent=percent,
            chance=chance,
        )
        caption = f"{without}: {', '.join(dict.fromkeys(absent))}." if absent else ""
        panels.append(Panel(svg, caption if svg else f"{without}: any rule here."))
    return panels


def cosine_panels(entries: Sequence[Entry], name: str) -> list[Panel]:
    """Cosine to the exact gradient over training, a panel per layer."""
    layers = list(dict.fromkeys(layer for entry in entries for run in entry.runs for layer in run.cosines))
    panels = []
    for layer in layers:
        curves = []
        for entry in entries:
            runs = [run for run in entry.runs if layer in run.cosines]
            length = min((len(run.probe_epochs) for run in runs), default=0)
            values = np.array([run.cosines[layer][:length] for run in runs]).reshape(len(runs), length)
            known = np.isfinite(values).all(axis=0) if len(runs) else np.zeros(0, dtype=bool)
            if not known.any():
                continue
            mean = values[:, known].mean(axis=0)
            wide = values[:, known].std(axis=0, ddof=1) if len(runs) > 1 else np.zeros_like(mean)
            curves.append(Curve(entry.label, entry.look, runs[0].probe_epochs[:length][known], mean, mean - wide, mean + wide))
        lowest = min((float(curve.low.min()) for curve in curves), default=0.0)
        limits = (-1.05 if lowest < -0.1 else min(0.0, lowest) - 0.02, 1.04)
        title = layer.replace("_", " ")
        svg = curves_svg(
            curves, name=f"{name}-{layer}", title=f"cosine, {title}", x_label="epochs", y_label=f"cosine, {title}", limits=limits
        )
        if svg:
            panels.append(Panel(svg))
    return panels


def component_looks(entries: Sequence[Entry]) -> dict[str, Look]:
    """A look for each component that takes energy on a page, largest share first; the smallest are one part, "other"."""
    weight: dict[str, float] = {}
    for entry in entries:
        for energy in (entry.train, entry.inference):
            for part, share in component_shares(energy).items():
                weight[part] = max(weight.get(part, 0.0), share)
    ranked = sorted(weight, key=lambda part: (-weight[part], part))
    looks = {part: _part_look(i) for i, part in enumerate(ranked[:PARTS_SHOWN])}
    if len(ranked) > PARTS_SHOWN:
        looks["other"] = Look(7)
    return looks


PART_COLOURS = (1, 5, 3, 10, 6, 12, 4, 8, 9, 2, 11, 13)
PART_HATCHES = (0, 1, 3, 5, 7, 1, 0, 1, 3, 7, 5, 0)
"""Colour slot and hatch of each part: no two share a colour, and colours that are near each other differ in hatch."""


def _part_look(place: int) -> Look:
    slot = PART_COLOURS[place]
    return Look(slot, (PART_HATCHES[place] - slot) % len(HATCHES))


def component_shares(energy: EnergyEstimate | None) -> dict[str, float]:
    """Share of each component in the sum of typical joules; empty when nothing is priced."""
    amounts: dict[str, float] = {}
    for part in () if energy is None else energy.parts:
        if part.cost is not None and part.amount > 0.0:
            amounts[part.label] = amounts.get(part.label, 0.0) + part.amount * part.cost.typical
    total = math.fsum(amounts.values())
    return {label: amount / total for label, amount in amounts.items()} if total > 0.0 else {}


def component_legend(looks: dict[str, Look], entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(SVG, label) of each component that some of these entries have."""
    present = {part for entry in entries for energy in (entry.train, entry.inference) for part in component_shares(energy)}
    return [(swatch_svg(look, patch=True), part) for part, look in looks.items() if part in present or part == "other"]


def energy_panels(entries: Sequence[Entry], looks: dict[str, Look], name: str, inference: bool) -> list[Panel]:
    """Shares by component, and totals inside each boundary with P10 to P90."""
    scope = "inference, per sample" if inference else "training, whole"
    bars, ranges, absent = [], [], []
    for entry in entries:
        energy = entry.inference if inference else entry.train
        total = None if energy is None else energy.total
        if energy is None or total is None:
            absent.append(entry.label)
            continue
        shares = component_shares(energy)
        parts = {part: share for part, share in shares.items() if part in looks}
        parts["other"] = max(0.0, 1.0 - math.fsum(parts.values())) if "other" in looks else 0.0
        mark = "" if energy.complete else "partial, "
        bars.append(Bar(entry.label, parts, f"{mark}{engineering(total.P50, 'J')}"))
    for level in BOUNDARIES:
        for entry in entries:
            energy = entry.inference if inference else entry.train
            figure = None if energy is None else energy.levels[level]
            if figure is not None:
                ranges.append(Range(level, entry.look, figure.P10, figure.P50, figure.P90))
    shares_svg = stacked_svg(
        bars, looks, name=f"{name}-shares", title=f"Energy by component, {scope}", x_label=f"share of energy, {scope}"
    )
    totals_svg = ranges_svg(
        ranges, name=f"{name}-totals", title=f"Energy by boundary, {scope}", x_label=f"energy, {scope}", unit="J"
    )
    missing = f" No figure for {', '.join(dict.fromkeys(absent))}." if absent else ""
    return [
        Panel(shares_svg, f"By component, at typical costs; the figure at the right is the P50 of the total.{missing}"),
        Panel(totals_svg, "Everything inside each boundary, from the inside out: P50, bars from P10 to P90."),
    ]


def tornado_panel(entry: Entry, name: str) -> Panel:
    """What the joules of training become when one constant alone goes from its low to its high value."""
    typical = math.fsum(part.amount * part.cost.typical for part in entry.train.parts if part.cost is not None)
    spans = [
        (f"{item.cost.component}: {item.cost.event}", item.low, item.high)
        for item in entry.train.sensitivity[:CONSTANTS_SHOWN]
        if item.high - item.low > 1e-3 * typical
    ]
    svg = tornado_svg(spans, typical, name=name, title=f"Sensitivity, {entry.label}", x_label="energy of training", unit="J")
    return Panel(svg, f"{entry.label} on {entry.row.substrate}")
