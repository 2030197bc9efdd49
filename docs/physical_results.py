"""Markdown tables of a comparison on driven physics: ``python docs/physical_results.py runs/physical``.

What docs/physical.md shows was printed by this from ``comparison.json``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inmaterio.experiments.physics_tables import difference_text, parameters_text, work_cells

ABLATED = (" without physics", " with linear physics")


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def error(row: Mapping[str, Any]) -> str:
    """Mean and standard deviation over runs, in percent."""
    spread = "" if row["test_error_std"] is None else f" ± {100 * row['test_error_std']:.1f}"
    return f"{100 * row['test_error_mean']:.1f}{spread}"


def main(folder: str) -> None:
    """Print every table."""
    document = json.loads((Path(folder) / "comparison.json").read_text())
    rows = document["rows"]
    errors = {(row["substrate"], row["rule"]): row for row in rows}
    print(f"`{document['settings']['command']}`\n")
    lines = []
    for row in rows:
        if row["rule"].endswith(ABLATED):
            continue
        without, linear = (errors.get((row["substrate"], row["rule"] + words)) for words in ABLATED)
        lines.append(
            [
                row["substrate"],
                f"({row['rule']})" if row["control"] else row["rule"],
                parameters_text(row),
                error(row) + (" (edge)" if row["rate_at_edge"] else ""),
                "" if without is None else error(without),
                "" if linear is None else error(linear),
                difference_text(row.get("difference_without_physics"), 100.0),
                difference_text(row.get("difference_with_linear_physics"), 100.0),
            ]
        )
    headings = ["substrate", "rule", "parameters", "error %", "without physics", "linear physics"]
    headings += ["difference to none", "difference to linear"]
    print(table(headings, lines))
    lines = []
    for row in rows:
        if not row["rule"].endswith(ABLATED):
            lines.append([row["substrate"], f"({row['rule']})" if row["control"] else row["rule"], *work_cells(row)])
    headings = ["substrate", "rule", "passes/update", "conversions", "MACs", "passes/inference", "conversions", "MACs"]
    print(table(headings, lines))
    for note in document["settings"]["notes"]:
        print(f"- {note}")


if __name__ == "__main__":
    main(sys.argv[1])
