"""The table and the page of a deployment study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from inmaterio.experiments.deployment import FILE, Row
from inmaterio.experiments.network_options import changed_note
from inmaterio.experiments.plots import Curve, Look, curves_svg, swatch_svg
from inmaterio.experiments.study_page import figure_text, scale_of, write_study_page


def level_name(settings: Mapping[str, Any]) -> str:
    """What is varied, in words."""
    names = [one.replace("_", " ") for one in settings["varied"]]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def deployment_table(document: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """Rows of a study for the terminal, and its footnotes."""
    rows, settings = document["rows"], document["settings"]
    percent = rows[0]["metric"] == "error"
    unit = " %" if percent else ""
    runs = max(len(row["runs"]) for row in rows)
    chips = "each on its own chip" if settings["own_chip"] else f"x {settings['chips']} chips"
    table = Table(
        title=f"written to {settings['substrate']}: {runs} runs {chips}", box=None, padding=(0, 2, 0, 0), pad_edge=False
    )
    table.add_column("rule, trained on, data", overflow="fold")
    if settings["varied"]:
        table.add_column("level", justify="right")
    there = "on its own\nchip" if settings["own_chip"] else "on the other\nchips"
    for heading in (f"as\ntrained{unit}", f"{there}{unit}", "± over\nruns", "± over\nchips", f"lost{unit}"):
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for row in rows:
        place = f"{row['rule']}, {row['trained_on']}, {row['data']}"
        level = [row["level"]] if settings["varied"] else []
        table.add_row(escape(place) if place != before else "", *level, *_figures(row, percent).values())
        before = place
    notes = [f"Level: {level_name(settings)}."] if settings["varied"] else []
    own = "chip that a run was trained on is drawn again"
    other = "chips are none that a network was trained on"
    notes += [
        f"{'Error' if percent else rows[0]['metric']} on test rows. ± of as trained and lost: standard deviation over runs. "
        "Over runs: of the mean over chips; over chips: within a run, pooled over runs; a dash where there is one alone.",
        f"The {own if settings['own_chip'] else other}. Nothing was trained there.",
        *changed_notes(settings),
    ]
    return table, notes


def changed_notes(settings: Mapping[str, Any]) -> list[str]:
    """Settings of the network that differ from training without being asked for, a note per substrate trained on."""
    return [changed_note(change, settings["substrate"]) for change in settings.get("changed", ())]


def _figures(row: Row, percent: bool) -> dict[str, str]:
    """What a line of the table or of the page says in numbers; a dash where a spread has nothing to rest on."""
    scale, digits = scale_of(percent)
    spreads = {
        name: "-" if row[key] is None else f"{scale * row[key]:.{digits}f}"
        for name, key in (("runs", "runs_std"), ("chips", "chips_std"))
    }
    return {
        "own": figure_text(row["own_mean"], row["own_std"], percent),
        "error": figure_text(row["error_mean"], None, percent),
        **spreads,
        "lost": figure_text(row["lost_mean"], row["lost_std"], percent, "+"),
    }


def where(settings: Mapping[str, Any]) -> str:
    """What the values were written to, in words."""
    if settings["own_chip"]:
        return "the chip that each was trained on"
    count = settings["chips"]
    return f"each of {count} other chips" if count > 1 else "one other chip"


def deployment_svg(rows: Sequence[Row], settings: Mapping[str, Any], *, name: str) -> str:
    """Error against the value that is varied, a line per rule; empty where values are no numbers, or there is one."""
    curves = []
    for slot, place in enumerate(dict.fromkeys((row["rule"], row["trained_on"]) for row in rows), start=1):
        own = [row for row in rows if (row["rule"], row["trained_on"]) == place and row["value"] is not None]
        if len(own) < 2:
            continue
        mean = np.array([row["error_mean"] for row in own])
        wide = np.array([row["error_std"] or 0.0 for row in own])
        curves.append(
            Curve(
                place[0], Look(slot, slot - 1, slot - 1), np.array([row["value"] for row in own]), mean, mean - wide, mean + wide
            )
        )
    percent = rows[0]["metric"] == "error"
    title = f"{'error' if percent else rows[0]['metric']} on test rows"
    return (
        curves_svg(curves, name=name, title=title, x_label=level_name(settings), y_label=title, x_unit=None, percent=percent)
        if curves
        else ""
    )


def write_deployment_report(out: Path) -> Path:
    """Write ``OUT/report.html`` about the study in a folder.

    Raises
    ------
    InputError
        When ``deployment.json`` is missing or damaged, or the page cannot be written.
    """
    return write_study_page(out, FILE, "deployment.html.jinja", _context)


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    rows, settings = list(document["rows"]), dict(document["settings"])
    percent = rows[0]["metric"] == "error"
    places = list(dict.fromkeys((row["rule"], row["trained_on"]) for row in rows))
    sections = []
    for i, data in enumerate(dict.fromkeys(row["data"] for row in rows)):
        own = [row for row in rows if row["data"] == data]
        lines = [
            {"rule": row["rule"], "trained_on": row["trained_on"], "level": row["level"], **_figures(row, percent)} for row in own
        ]
        sections.append({"data": data, "svg": deployment_svg(own, settings, name=f"d{i}"), "lines": lines})
    return {
        "substrate": settings["substrate"],
        "where": where(settings),
        "there": "its own chip" if settings["own_chip"] else "the other chips",
        "runs": max(len(row["runs"]) for row in rows),
        "varied": level_name(settings),
        "unit": "%" if percent else rows[0]["metric"],
        "options": [(name.replace("_", " "), str(value)) for name, value in settings["options"].items()],
        "legend_items": [(swatch_svg(Look(i, i - 1, i - 1)), rule) for i, (rule, _) in enumerate(places, start=1)],
        "changed": changed_notes(settings),
        "sections": sections,
        "command": str(settings["command"]),
    }
