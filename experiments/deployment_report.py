"""The table and the page of a deployment study."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from inmaterio.devices.validation import InputError
from inmaterio.experiments.deployment import FILE, Row
from inmaterio.experiments.plots import Curve, Look, curves_svg, swatch_svg


def level_name(settings: Mapping[str, Any]) -> str:
    """What is varied, in words."""
    names = [one.replace("_", " ") for one in settings["varied"]]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def deployment_table(document: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """Rows of a study for the terminal, and its footnotes."""
    rows, settings = document["rows"], document["settings"]
    percent = rows[0]["metric"] == "error"
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    runs = max(len(row["runs"]) for row in rows)
    title = f"written to {settings['substrate']}: {runs} runs x {settings['chips']} chips"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("rule, trained on, data", overflow="fold")
    if settings["varied"]:
        table.add_column("level", justify="right")
    for heading in ("as trained", "on the other chips", "lost"):
        table.add_column(f"{heading}{' %' if percent else ''}", justify="right", no_wrap=True)
    before = None
    for row in rows:
        place = f"{row['rule']}, {row['trained_on']}, {row['data']}"
        cells = [
            _spread(row["own_mean"], row["own_std"], scale, digits),
            _spread(row["error_mean"], row["error_std"], scale, digits),
            _spread(row["lost_mean"], row["lost_std"], scale, digits, "+"),
        ]
        level = [row["level"]] if settings["varied"] else []
        table.add_row(escape(place) if place != before else "", *level, *cells)
        before = place
    notes = [f"Level: {level_name(settings)}."] if settings["varied"] else []
    notes += [
        f"{'Error' if percent else rows[0]['metric']} on test rows, mean ± standard deviation over runs and chips; lost: over "
        "runs, each averaged over its chips. Nothing was trained on the other chips."
    ]
    return table, notes


def _spread(mean: float, std: float | None, scale: float, digits: int, sign: str = "") -> str:
    return f"{scale * mean:{sign}.{digits}f}" + ("" if std is None else f" ±{scale * std:.{digits}f}")


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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    out = Path(out)
    try:
        document = json.loads((out / FILE).read_text(encoding="utf-8"))
        context = _context(document)
    except OSError as error:
        raise InputError(f"cannot read {out / FILE}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{out / FILE} is damaged: {type(error).__name__} {error}") from None
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("deployment.html.jinja").render(context)
    file = out / "report.html"
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None
    return file


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    rows, settings = list(document["rows"]), dict(document["settings"])
    percent = rows[0]["metric"] == "error"
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    places = list(dict.fromkeys((row["rule"], row["trained_on"]) for row in rows))
    sections = []
    for i, data in enumerate(dict.fromkeys(row["data"] for row in rows)):
        own = [row for row in rows if row["data"] == data]
        lines = [
            {
                "rule": row["rule"],
                "trained_on": row["trained_on"],
                "level": row["level"],
                "own": _spread(row["own_mean"], row["own_std"], scale, digits),
                "error": _spread(row["error_mean"], row["error_std"], scale, digits),
                "lost": _spread(row["lost_mean"], row["lost_std"], scale, digits, "+"),
            }
            for row in own
        ]
        sections.append({"data": data, "svg": deployment_svg(own, settings, name=f"d{i}"), "lines": lines})
    return {
        "substrate": settings["substrate"],
        "chips": settings["chips"],
        "runs": max(len(row["runs"]) for row in rows),
        "varied": level_name(settings),
        "unit": "%" if percent else rows[0]["metric"],
        "options": [(name.replace("_", " "), str(value)) for name, value in settings["options"].items()],
        "legend_items": [(swatch_svg(Look(i, i - 1, i - 1)), rule) for i, (rule, _) in enumerate(places, start=1)],
        "sections": sections,
        "command": str(settings["command"]),
    }
