"""What the physics is worth, and what a row takes: tables for the terminal, and the plain sentences that go with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from inmaterio.experiments.tables import short

ABLATED = (("difference_without_physics", "no physics"), ("difference_with_linear_physics", "linear physics"))
"""Keys of the paired differences in a row, and what they are against."""


def has_ablations(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any row has a control without its physics beside it."""
    return any(row.get(key) for row in rows for key, _ in ABLATED)


def difference_text(found: Mapping[str, Any] | None, scale: float, gap: str = " ") -> str:
    """A paired difference, what it says, and its interval."""
    if found is None:
        return "-"
    ends = "" if found["low"] is None else f"{gap}[{scale * found['low']:+.1f}, {scale * found['high']:+.1f}]"
    return f"{scale * found['mean']:+.1f} {found['standing']}{ends}"


def physics_table(rows: Sequence[Mapping[str, Any]], *, width: int = 110) -> Table:
    """Each rule beside itself without its physics and with linear physics; below 105 characters intervals take a second line."""
    scale = 100.0 if rows[0]["metric"] == "error" else 1.0
    title = "what the physics is worth: error, and paired differences with 95 % intervals; negative is better"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column("rule", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    for _, words in ABLATED:
        table.add_column(f"against {words}", no_wrap=True)
    gap = "\n" if width < 105 else " "
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(substrate)}[/]")
        for row in rows:
            if row["substrate"] == substrate and any(row.get(key) for key, _ in ABLATED):
                cells = (escape(difference_text(row.get(key), scale, gap)) for key, _ in ABLATED)
                table.add_row(f"  {escape(row['rule'])}", f"{scale * row['test_error_mean']:.1f}", *cells)
    return table


def work_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Trained parameters, and device passes, conversions and multiply-accumulates in the host, per update and per inference."""
    table = Table(
        title="what it takes: passes, conversions, MACs in the host, per update and per sample inferred",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("rule", overflow="fold")
    for heading in ("parameters", "passes", "conv.", "MACs", "passes", "conv.", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(substrate)}[/]")
        for row in rows:
            if row["substrate"] == substrate:
                name = f"({row['rule']})" if row["control"] else row["rule"]
                table.add_row(f"  {escape(name)}", parameters_text(row), *work_cells(row))
    return table


def parameters_text(row: Mapping[str, Any]) -> str:
    """Trained parameters: digital, and with a plus physical ones."""
    digital, physical = row["trained_digital"], row["trained_physical"]
    return f"{digital} + {physical}" if digital and physical else str(digital or physical)


def work_cells(row: Mapping[str, Any]) -> list[str]:
    """Passes, conversions and MACs, first of an update, then of an inference."""
    cells = []
    for part in ("update", "inference"):
        found = row["work"][part]
        cells += ["-"] * 3 if found is None else [short(found[name]) for name in ("passes", "conversions", "macs")]
    return cells


def physics_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where physics helps, where it harms, where it makes no difference, and where that cannot be told."""
    said = {
        "better": "helps",
        "worse": "harms",
        "equal": "makes no difference to",
        "not told apart": "is not told apart from its absence for",
    }
    sentences = []
    for key, words in ABLATED:
        groups: dict[str, list[str]] = {}
        for row in rows:
            if row.get(key):
                groups.setdefault(row[key]["standing"], []).append(f"{row['rule']} on {row['substrate']}")
        for standing, verb in said.items():
            if groups.get(standing):
                sentences.append(f"Compared with {words}, the physics {verb} {'; '.join(groups[standing])}.")
    return sentences
