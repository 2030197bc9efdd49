"""What the physics is worth and what a rule takes, on a page: tables, figures and sentences, apart for each kind of substrate.

Substrates on which only digital maps are trained stand in a block of their own, before those with trained physical parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inmaterio.experiments.controls import ABLATIONS, BASELINE, LINEAR_PHYSICS, WITHOUT_PHYSICS
from inmaterio.experiments.metrics import DECIDING_PAIRS, EQUAL_MARGIN
from inmaterio.experiments.physics_plots import Difference, differences_svg, reach
from inmaterio.experiments.physics_tables import counted as plainly_counted
from inmaterio.experiments.physics_tables import difference_key, fidelity_sentences, physics_sentences
from inmaterio.experiments.report_entries import Entry, Versus, find_ablation, versus
from inmaterio.experiments.report_figures import Panel
from inmaterio.experiments.report_tables import difference_cell
from inmaterio.experiments.report_text import points, points_unit, spread_text, standing_text
from inmaterio.experiments.tables import short

HEADINGS = {WITHOUT_PHYSICS: "against no physics", LINEAR_PHYSICS: "against linear physics"}
"""Of the figures, by what is done to the physics."""

DIGITAL_MAPS, PHYSICAL, UNKNOWN = "Digital maps only", "Physical parameters too", "Trained parameters not counted"
DIGITAL_NETWORK = "Digital network"
BLOCKS = (DIGITAL_MAPS, PHYSICAL, UNKNOWN, DIGITAL_NETWORK)
"""Headings of the blocks, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A rule beside the same rule with something done to the physics."""

    entry: Entry
    words: str
    other: Entry
    against: Versus


def ablated(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose physics is replaced and that are held against the rule with physics."""
    return [other for _, _, other in _pairs(entries)]


def shown(entries: Sequence[Entry]) -> list[Entry]:
    """The others: those of the main tables and figures."""
    hidden = ablated(entries)
    return [entry for entry in entries if entry not in hidden]


def held_entries(entries: Sequence[Entry]) -> list[Held]:
    """Each rule beside each of its ablations."""
    return [Held(entry, words, other, versus(entry, other)) for entry, words, other in _pairs(entries)]


def _pairs(entries: Sequence[Entry]) -> list[tuple[Entry, str, Entry]]:
    found = []
    for entry in entries:
        if not entry.row.control:
            others = ((words, find_ablation(entry, entries, words)) for words in ABLATIONS)
            found += [(entry, words, other) for words, other in others if other is not None]
    return found


def block_of(substrate: str, entries: Sequence[Entry]) -> str:
    """Heading of the block that a substrate stands in."""
    if substrate == BASELINE[1]:
        return DIGITAL_NETWORK
    counts = [entry.row.trained_physical for entry in shown(entries) if entry.row.substrate == substrate]
    if None in counts:
        return UNKNOWN
    return PHYSICAL if any(counts) else DIGITAL_MAPS


def by_block(groups: Sequence[Sequence[Entry]], entries: Sequence[Entry]) -> list[tuple[str, Sequence[Entry]]]:
    """Groups of one substrate each in the order of the blocks, each with its block's heading.

    Headings are empty where no entry has an ablation: blocks are told apart for physical networks only.
    """
    if not ablated(entries):
        return [("", group) for group in groups]
    titled = [(block_of(group[0].row.substrate, entries), group) for group in groups]
    return sorted(titled, key=lambda one: BLOCKS.index(one[0]))


def first_of_block(titles: Sequence[str]) -> list[str]:
    """Titles, empty where the one before is the same."""
    return [title if i == 0 or titles[i - 1] != title else "" for i, title in enumerate(titles)]


def physics_context(entries: Sequence[Entry], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section takes; None where no rule stands beside itself without physics."""
    held = held_entries(entries)
    if not held:
        return None
    substrates = list(dict.fromkeys((one.entry.row.data, one.entry.row.split, one.entry.row.substrate) for one in held))
    blocks = []
    for title in BLOCKS:
        places = [place for place in substrates if block_of(place[2], entries) == title]
        if places:
            sections = [_substrate(held, place, f"p{substrates.index(place)}") for place in places]
            blocks.append(
                {"title": title, "counts": count_sentences(entries, [place[2] for place in places]), "sections": sections}
            )
    stood = [
        {
            "rule": one.entry.label,
            "substrate": one.entry.row.substrate,
            difference_key(one.words): {"standing": one.against.standing},
            "twin_fidelity": one.entry.row.extra.get("twin_fidelity"),
        }
        for one in held
        if one.against.error is not None
    ]
    return {"sentences": [*physics_sentences(stood), *fidelity_sentences(stood)], "blocks": blocks, "margin": EQUAL_MARGIN}


def _substrate(held: Sequence[Held], place: tuple[str, str, str], name: str) -> dict[str, Any]:
    """Table and figures of one substrate."""
    own = [one for one in held if (one.entry.row.data, one.entry.row.split, one.entry.row.substrate) == place]
    entries = list(dict.fromkeys(one.entry for one in own))
    metric = entries[0].row.metric
    lines = []
    for entry in entries:
        found = {one.words: one for one in own if one.entry is entry}
        others = [found[words].other if words in found else None for words in ABLATIONS]
        differences = [difference_cell(entry, other) for other in others]
        lines.append({"rule": entry.label, "errors": [_error(one) for one in (entry, *others)], "differences": differences})
    drawn = {words: [_dot(one) for one in own if one.words == words and one.against.error is not None] for words in ABLATIONS}
    half = reach([dot for dots in drawn.values() for dot in dots], EQUAL_MARGIN)
    unit = points_unit(metric)
    panels = [
        Panel(
            differences_svg(
                dots,
                name=f"{name}-{words.replace(' ', '-')}",
                title=f"{place[2]}: error of each rule with physics minus that {words}, with 95 % intervals",
                heading=HEADINGS[words],
                x_label=f"difference in error, {unit}" if metric == "error" else f"difference in {unit}",
                half=half,
                margin=EQUAL_MARGIN,
                percent=metric == "error",
            )
        )
        for words, dots in drawn.items()
    ]
    return {"title": place[2], "lines": lines, "panels": panels}


def _error(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    row = entry.row
    return {
        "text": spread_text(row.test_error_mean, row.test_error_std, len(entry.runs), row.metric).split(" (n")[0],
        "parameters": parameters_text(entry),
        "at_edge": row.extra.get("rate_at_edge") is True,
    }


def _dot(one: Held) -> Difference:
    gap, metric = one.against.error, one.entry.row.metric
    assert gap is not None
    words = f"{points(gap.estimate, metric)}, {standing_text(gap, one.against.pair)}"
    low, high = (gap.low, gap.high) if gap.count >= DECIDING_PAIRS else (None, None)
    return Difference(one.entry.label, one.entry.look, gap.estimate, low, high, words)


def counted(value: int) -> str:
    """A whole number with its thousands apart, never on two lines."""
    return plainly_counted(value).replace(" ", "\N{NO-BREAK SPACE}")


def trained(entry: Entry) -> int | None:
    """Trained parameters, digital and physical."""
    digital, physical = entry.row.trained_digital, entry.row.trained_physical
    return None if digital is None or physical is None else digital + physical


def parameters_text(entry: Entry) -> str:
    """``2442``, and where there are physical ones ``2442 + 8 physical``."""
    digital, physical = entry.row.trained_digital, entry.row.trained_physical
    if digital is None or physical is None:
        return "–"
    if not physical:
        return counted(digital)
    return f"{counted(digital)} + {counted(physical)} physical" if digital else f"{counted(physical)} physical"


def count_sentences(entries: Sequence[Entry], substrates: Sequence[str]) -> list[str]:
    """How many parameters each rule trains on these substrates, and by how much the numbers differ."""
    own = [entry for entry in entries if entry.row.substrate in substrates and trained(entry) is not None]
    rules = [entry for entry in own if not entry.row.control]
    if not rules:
        return []
    numbers, differing = [], []
    for label in dict.fromkeys(entry.label for entry in rules):
        mine = sorted((entry for entry in rules if entry.label == label), key=_total)
        least, most = mine[0], mine[-1]
        if _total(least) == _total(most):
            numbers.append(f"{label} {parameters_text(least)}")
        else:
            gap = _total(most) - _total(least)
            share = f", or {100 * gap / _total(least):.2g} %" if _total(least) else ""
            differing.append(
                f"{label} {parameters_text(least)} on {least.row.substrate} to {parameters_text(most)} on {most.row.substrate}, "
                f"which differ by {counted(gap)}{share}"
            )
    sentences = []
    if numbers:
        several = len(substrates) > 1
        said = (
            f"Parameters that are trained, equal on all {len(substrates)} substrates"
            if several
            else "Parameters that are trained"
        )
        sentences.append(f"{said}: {'; '.join(numbers)}.")
    if differing:
        sentences.append(f"Parameters that are trained, not equal on all {len(substrates)} substrates: {'; '.join(differing)}.")
    return sentences + [_beside(rules, own, words) for words in ABLATIONS if any(one.row.ablation for one in own)]


def _total(entry: Entry) -> int:
    return trained(entry) or 0


def _beside(rules: Sequence[Entry], own: Sequence[Entry], words: str) -> str:
    """By how much the number changes under an ablation."""
    gaps: dict[str, list[int]] = {}
    for entry in rules:
        other = find_ablation(entry, own, words)
        if other is not None:
            gaps.setdefault(entry.label, []).append(_total(other) - _total(entry))
    texts: dict[str, list[str]] = {}
    for label, found in gaps.items():
        low, high = min(found), max(found)
        text = _gap(low) if low == high else f"{_gap(low)} to {_gap(high)}"
        texts.setdefault(text, []).append(label)
    said = [f"{text} ({', '.join(labels)})" for text, labels in texts.items()]
    return f"{words.capitalize()}: {'; '.join(said)}."


def _gap(value: int) -> str:
    return f"{counted(abs(value))} {'more' if value > 0 else 'fewer'}" if value else "as many"


def work_context(entries: Sequence[Entry], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lines of the table of what is trained, driven, converted and computed; None where no line says, or none is ablated."""
    if not ablated(entries) or all(entry.row.work is None for entry in entries):
        return None
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.row.data, entry.row.split, entry.row.substrate), []).append(entry)
    titled = by_block(list(groups.values()), entries)
    headings = first_of_block([title for title, _ in titled])
    found = [
        {"block": heading, "substrate": group[0].row.substrate, "lines": [_work_line(entry) for entry in _under_rules(group)]}
        for heading, (_, group) in zip(headings, titled, strict=True)
    ]
    batch = settings.get("batch_size")
    return {
        "groups": found,
        "batch": batch if isinstance(batch, int) else None,
        "goodness": sorted({entry.label for entry in entries if not entry.row.control and "forward-forward" in entry.row.rule}),
    }


def _under_rules(group: Sequence[Entry]) -> list[Entry]:
    """Rules, each followed by its ablations; then the other controls."""
    ordered = []
    for entry in group:
        if not entry.row.control:
            ordered += [entry, *(other for words in ABLATIONS if (other := find_ablation(entry, group, words)) is not None)]
    return ordered + [entry for entry in group if entry not in ordered]


def _work_line(entry: Entry) -> dict[str, Any]:
    work = entry.row.work or {}
    cells = []
    for part in ("update", "inference"):
        found = work.get(part)
        cells += ["–"] * 3 if found is None else [short(found[name]) for name in ("passes", "conversions", "macs")]
    ablation = entry.row.ablation
    return {
        "label": entry.label if ablation is None else ablation[1],
        "control": entry.row.control,
        "ablation": ablation is not None,
        "parameters": parameters_text(entry),
        "cells": cells,
    }
