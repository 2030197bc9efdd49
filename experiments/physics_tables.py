"""What the physics is worth, and what a row takes: tables for the terminal, and the plain sentences that go with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from inmaterio.experiments.controls import ABLATIONS, ablation_of
from inmaterio.experiments.tables import short


def difference_key(words: str) -> str:
    """Key of the paired difference in a row, from what was done to the physics in the row it is held against."""
    return f"difference_{words.replace(' ', '_')}"


ABLATED = tuple((difference_key(words), name) for words, name in zip(ABLATIONS, ("no physics", "linear physics"), strict=True))
"""Keys of the paired differences in a row, and what they are against."""


def has_ablations(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any row has a control without its physics beside it."""
    return any(row.get(key) for row in rows for key, _ in ABLATED)


def difference_text(found: Mapping[str, Any] | None, scale: float, gap: str = " ") -> str:
    """A paired difference, what it says, and its interval."""
    if found is None:
        return "-"
    digits = 1 if scale == 100.0 else 3
    mean, low, high = (None if found[end] is None else f"{scale * found[end]:+.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} {found['standing']}{'' if low is None else f'{gap}[{low}, {high}]'}"


def physics_table(rows: Sequence[Mapping[str, Any]], *, width: int = 110) -> Table:
    """Each rule beside itself without its physics and with linear physics; below 105 characters intervals take a second line."""
    scale = 100.0 if rows[0]["metric"] == "error" else 1.0
    title = "what the physics is worth: error, and paired differences with 95 % intervals; negative is better"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column("rule", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    for _, words in ABLATED:
        table.add_column(f"against {words}", no_wrap=True)
    gap, digits = "\n" if width < 105 else " ", 1 if scale == 100.0 else 3
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        own = [row for row in rows if row["substrate"] == substrate and any(row.get(key) for key, _ in ABLATED)]
        if own:
            table.add_row()
            table.add_row(f"[bold]{escape(substrate)}[/]")
        for row in own:
            cells = (escape(difference_text(row.get(key), scale, gap)) for key, _ in ABLATED)
            spread = "" if row["test_error_std"] is None else f" ±{scale * row['test_error_std']:.{digits}f}"
            table.add_row(f"  {escape(row['rule'])}", f"{scale * row['test_error_mean']:.{digits}f}{spread}", *cells)
    return table


def work_table(rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> Table:
    """Trained parameters, and device passes, conversions and multiply-accumulates in the host, per update and per inference."""
    update = "update" if batch_size is None else f"update of {batch_size} rows"
    table = Table(
        title=f"what it takes, per {update} and per sample inferred (MACs: in the host)",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("rule", overflow="fold")
    counts = [f"{name}\n{part}" for part in ("update", "sample") for name in ("passes", "conv.", "MACs")]
    for heading in ("parameters\ntrained", *counts):
        table.add_column(heading, justify="right", no_wrap=True)
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(substrate)}[/]")
        for row in _under_rules([row for row in rows if row["substrate"] == substrate]):
            ablation = ablation_of(row["rule"]) if row["control"] else None
            name = f"  {ablation[1]}" if ablation else f"({row['rule']})" if row["control"] else row["rule"]
            table.add_row(f"  {escape(name)}", parameters_text(row), *work_cells(row))
    return table


def _under_rules(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rules, each followed by its ablations; then the other controls."""
    ordered: list[Mapping[str, Any]] = []
    for row in rows:
        if not row["control"]:
            names = [f"{row['rule']} {words}" for words in ABLATIONS]
            ordered += [row, *(other for other in rows if other["control"] and other["rule"] in names)]
    return ordered + [row for row in rows if not any(row is one for one in ordered)]


def counted(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}".replace(",", " ")


def parameters_text(row: Mapping[str, Any]) -> str:
    """Trained parameters: digital, and with a plus physical ones."""
    digital, physical = row["trained_digital"], row["trained_physical"]
    return f"{counted(digital)} + {counted(physical)}" if physical else counted(digital)


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
        "better": "the physics helps",
        "worse": "the physics harms",
        "equal": "the physics makes no difference to",
        "not told apart": "these runs do not tell whether the physics helps or harms",
    }
    sentences = []
    for key, words in ABLATED:
        groups: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            if row.get(key):
                groups.setdefault(row[key]["standing"], {}).setdefault(row["substrate"], []).append(row["rule"])
        for standing, verb in said.items():
            if standing in groups:
                where = "; ".join(f"{', '.join(rules)} on {substrate}" for substrate, rules in groups[standing].items())
                sentences.append(f"Compared with {words}, {verb} {where}.")
    return sentences


def fidelity_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How well the models that were fitted to the physics predict pairs held out; those of ablations are left out."""
    found = [row for row in rows if row.get("twin_fidelity") is not None and not ablation_of(row["rule"])]
    if not found:
        return []
    told = "; ".join(dict.fromkeys(f"{row['rule']} on {row['substrate']} {row['twin_fidelity']:.3f}" for row in found))
    return [f"Twins fitted to measured pairs predict pairs held out with R² of (mean over layers and runs): {told}."]
