"""What spiking networks take per inference, beside how well they do before and after their delays are rounded."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from inmaterio.experiments.tables import NO_FIGURE, broken, difference_in_points, short

SILENT = 0.5
"""Spikes of a whole network per sample, below which it is as good as silent."""

NEEDED = 0.05
"""Share of errors within which a network without delays makes delays unnecessary: 5 points."""


def has_spikes(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any row spikes when it infers."""
    return any((row["work"]["inference"] or {}).get("synaptic_events") for row in rows)


def spiking_table(rows: Sequence[Mapping[str, Any]], *, width: int = 110) -> Table:
    """Error, the paired difference to the first rule with its 95 % interval, trained parameters, and what an inference takes."""
    scale = 100.0 if rows[0]["metric"] == "error" else 1.0
    table = Table(
        title="per sample inferred: synaptic events, spikes, joules; beside them trained parameters",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("rule", no_wrap=True)
    gap = "\n" if width < 105 else " "
    headings = ("error", f"against{gap}first rule", "trained", "events", "spikes", f"joules P50{gap}[P10-P90]")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for substrate in dict.fromkeys(row["substrate"] for row in rows):
        table.add_row()
        table.add_row(f"[bold]{escape(chr(10).join(broken(substrate, 20)) if gap != ' ' else substrate)}[/]")
        for row in rows:
            if row["substrate"] != substrate:
                continue
            spread = "" if row["test_error_std"] is None else f"{gap}±{scale * row['test_error_std']:.1f}"
            took = row["work"]["inference"] or {}
            low, middle, high = (row["energy_inference_J"][point] for point in ("P10", "P50", "P90"))
            mark = "*" if row["energy_inference_partial"] else ""
            joules = f"{short(middle, 'J')}{mark}{gap}[{short(low, 'J')}-{short(high, 'J')}]" if middle is not None else NO_FIGURE
            spikes = bool(took.get("synaptic_events"))
            events = [short(took[name]) if spikes else "-" for name in ("synaptic_events", "spikes")]
            found = row.get("difference_first_rule")
            name = f"({row['rule']})" if row["control"] else str(row["rule"])
            table.add_row(
                escape("\n".join(f"  {line}" for line in (_lines(name) if gap == "\n" else [name]))),
                f"{scale * row['test_error_mean']:.1f}{spread}",
                escape("-" if found is None else difference_in_points(found, scale, gap)),
                short(row["trained_digital"] + row["trained_physical"]),
                *events,
                escape(joules),
            )
    return table


def _lines(name: str) -> list[str]:
    """A name broken at hyphens and before its hyperparameters."""
    plain, mark, settings = name.partition("?")
    return [*broken(plain), *([f"?{settings}"] if mark else [])]


def silence_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which networks sent next to no spikes on test rows: they answer from nothing, and lose nothing on another chip."""
    silent = []
    for row in rows:
        took = row["work"]["inference"] or {}
        if took.get("synaptic_events") and took["spikes"] < SILENT:
            silent.append(f"{row['rule']} on {row['substrate']}")
    if not silent:
        return []
    return [
        f"! Hidden neurons are silent (fewer than {SILENT:g} spikes per sample): {'; '.join(silent)}. First couplings are too "
        "small for these data: try a larger --gain."
    ]


def delay_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the data need delays: not where the same rule with ``delays=none`` comes within 5 points.

    Where the 95 % interval of the paired difference holds 5 points, or too few pairs give one, the sentence says so.
    """
    sentences = []
    for none in rows:
        if none["control"] or "delays=none" not in none["rule"]:
            continue
        learned = next((row for row in rows if _is_learned(row, none)), None)
        if learned is None or none["metric"] != "error":
            continue
        found, more = none.get("difference_first_rule"), none["test_error_mean"] - learned["test_error_mean"]
        few = "" if found is None else _certainty(found)
        verdict = "does not need delays" if more <= NEEDED else "needs delays"
        sentences.append(
            f"{none['data']} on {none['substrate']} {verdict}: without any, {100 * none['test_error_mean']:.1f} % of errors, "
            f"with learned ones {100 * learned['test_error_mean']:.1f} % ({100 * NEEDED:.0f} points decide{few})."
        )
    return sentences


def _certainty(found: Mapping[str, Any]) -> str:
    """What the paired difference to the first rule adds to a verdict."""
    if not found["decides"]:
        return f"; {found['pairs']} pairs of seeds decide nothing"
    told = f"; paired difference {difference_in_points(found)}"
    return told + (", which leaves it open" if found["low"] <= NEEDED <= found["high"] else "")


def _is_learned(row: Mapping[str, Any], none: Mapping[str, Any]) -> bool:
    """Whether a row is of the same rule on the same substrate with delays that are learned."""
    same = row["substrate"] == none["substrate"] and row["trained_by"].partition("?")[0] == none["trained_by"].partition("?")[0]
    return same and not row["control"] and "delays=" not in row["rule"].replace("delays=learned", "")
