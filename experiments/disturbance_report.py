"""The page and the table of a disturbance study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from inmaterio.experiments.disturbance import FILE
from inmaterio.experiments.disturbance_plots import line_svg, looks, overview_svg
from inmaterio.experiments.disturbance_rows import Row, share_text, statements
from inmaterio.experiments.metrics import DECIDING_PAIRS
from inmaterio.experiments.plots import swatch_svg
from inmaterio.experiments.report_tables import plain
from inmaterio.experiments.study_page import figure_text, scale_of, write_study_page
from inmaterio.experiments.tables import broken, short

POINTS = ("before", "at", "after", "end", "undisturbed")
"""Errors of a row, in the order of the columns."""


def headings(kind: str) -> tuple[str, ...]:
    """What the columns of `POINTS` are called."""
    first = "at the knock" if kind == "knock" else "after the first step"
    return ("before", first, "1 epoch on", "at the end", "undisturbed")


def disturbance_tables(rows: Sequence[Row], *, width: int = 120) -> list[Table]:
    """Rows of a study for the terminal, a table per substrate; below 120 characters names break and spreads go below."""
    return [
        _table([row for row in rows if row["substrate"] == substrate], width < 120)
        for substrate in dict.fromkeys(row["substrate"] for row in rows)
    ]


def _table(rows: Sequence[Row], narrow: bool) -> Table:
    first = rows[0]
    percent = first["metric"] == "error"
    what = "validation error in %" if percent else f"{first['metric']} on validation rows"
    title = f"{first['data']} on {first['substrate']}: {first['kind']} after epoch {first['epoch']} of {first['epochs']}; {what}"
    title += f"\ndata: {first['data_notes']}" if first.get("data_notes") else ""
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("rule", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in headings(first["kind"]):
        table.add_column(heading.replace(" ", "\n").replace("undisturbed", "undis-\nturbed"), justify="right", no_wrap=True)
    table.add_column("reco-\nvered" if narrow else "recovered", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        cells = [
            row["rule"],
            row["model"],
            *(figure_text(row[point]["mean"], row[point]["std"], percent) for point in POINTS),
            share_text(row),
            row["verdict"],
        ]
        if narrow:
            cells[0] = "\n".join(line for word in row["rule"].split(" ") for line in broken(word))
            cells[1] = "\n".join(row["model"].split(" ")) if row["model"] != "none" else "none"
            cells[2:] = [cell.replace(" ±", "\n±").replace("not told apart", "not told\napart") for cell in cells[2:]]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def notes_of(document: Mapping[str, Any]) -> list[str]:
    """Lines below the table."""
    rows, settings = document["rows"], document["settings"]
    harm = "error at the knock - before" if settings["kind"] == "knock" else "what the frozen line lost at the end"
    return [
        f"Recovered: 1 - (end - undisturbed end) / ({harm}), of means over seeds. It recovers when more than half is undone,",
        f"by the 95 % interval over pairs of seeds; fewer than {DECIDING_PAIRS} seeds decide nothing.",
        *statements(rows),
        *(note[0].upper() + note[1:] + ("" if note.endswith(".") else ".") for note in settings["notes"]),
    ]


def write_disturbance_report(out_dir: Path) -> Path:
    """Write ``OUT/report.html`` about the study in a folder.

    Raises
    ------
    InputError
        When ``disturbance.json`` is missing or damaged, or the page cannot be written.
    """
    out_dir = Path(out_dir)
    return write_study_page(out_dir, FILE, "disturbance.html.jinja", lambda document: _context(document, out_dir))


def _context(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    rows, settings = list(document["rows"]), dict(document["settings"])
    first, chosen = rows[0], looks(rows)
    percent = first["metric"] == "error"
    sections = []
    for i, substrate in enumerate(dict.fromkeys(row["substrate"] for row in rows)):
        own = [row for row in rows if row["substrate"] == substrate]
        frozen = next((row for row in own if row["rule"].startswith("frozen (")), None)
        title = f"{substrate}: error on validation rows against epochs, {settings['kind']} after epoch {settings['epoch']}"
        panels = [
            {"svg": line_svg(row, chosen[row["rule"]], frozen, name=f"d{i}-line{k}"), "caption": _caption(row)}
            for k, row in enumerate(own)
        ]
        sections.append(
            {
                "title": substrate,
                "overview": overview_svg(own, chosen, name=f"d{i}-overview", title=title),
                "panels": panels,
                "lines": [_line(row, percent, folder) for row in own],
            }
        )
    return {
        "title": f"A {settings['kind']} in mid-training: which rules recover on {first['data']}",
        "data_notes": first.get("data_notes", ""),
        "kind": settings["kind"],
        "settings": [(key.replace("_", " "), plain(value)) for key, value in settings.items() if key not in ("command", "notes")],
        "epoch": settings["epoch"],
        "epochs": settings["epochs"],
        "size": f"{settings['size']:g}",
        "recalibrate": settings["recalibrate"],
        "seeds": settings["seeds"],
        "rows": first["validation_rows"],
        "unit": "%" if percent else first["metric"],
        "headings": headings(settings["kind"]),
        "statements": statements(rows),
        "legend_items": [(swatch_svg(look), name) for name, look in chosen.items()],
        "sections": sections,
        "deciding": DECIDING_PAIRS,
        "optimiser": settings["optimiser"],
        "tuned": any(row["rate_origin"] == "tuned" for row in rows),
        "notes": [str(note) for note in settings["notes"]],
        "command": str(settings["command"]),
    }


def _caption(row: Row) -> str:
    return f"{row['verdict']}; recovered {share_text(row)}; model: {row['model']}"


def _line(row: Row, percent: bool, folder: Path) -> dict[str, Any]:
    left = row["left"]
    scale, digits = scale_of(percent)
    interval = "" if left["low"] is None else f"{scale * left['low']:+.{digits}f} to {scale * left['high']:+.{digits}f}"
    cosines = [row["cosine"][name] for name in ("before", "after")]
    return {
        "rule": row["rule"],
        "trained_by": row["trained_by"],
        "fixed": not row["adapts"],
        "model": row["model"].partition(" every ")[0],
        "again": "".join(row["model"].partition(" every ")[1:]).strip(),
        "errors": [figure_text(row[point]["mean"], row[point]["std"], percent) for point in POINTS],
        "left": figure_text(left["mean"], None, percent, "+"),
        "interval": interval,
        "standing": row["standing"],
        "recovered": share_text(row),
        "verdict": row["verdict"],
        "cosines": " → ".join("–" if one is None else f"{one:.2f}" for one in cosines),
        "passes": short(row["device_passes"]),
        "rate": f"{row['rate_factor']:g}",
        "rate_origin": row["rate_origin"],
        "runs": [_shown(run, folder) for run in (*row["runs"], *row["undisturbed_runs"])],
    }


def _shown(run: str, folder: Path) -> str:
    """A run directory as seen from the page."""
    return Path(run).name if Path(run).parent.resolve() == folder.resolve() else run
