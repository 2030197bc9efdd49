"""Tables of what the physics is worth, in the terminal, and what is left out of a comparison, said once per reason."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.controls import ablation_of, plan_rows
from inmaterio.experiments.left_out import LeftOut, left_out_lines, split_notes
from inmaterio.experiments.physics_tables import (
    difference_text,
    has_ablations,
    parameters_text,
    physics_sentences,
    physics_table,
    work_table,
)
from inmaterio.experiments.tables import comparison_table


def difference(mean: float, half: float | None, standing: str) -> dict[str, Any]:
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return {"mean": mean, "low": low, "high": high, "standing": standing, "pairs": 3, "pair": "seed"}


def row(rule: str, substrate: str, *, control: bool = False, **changes: Any) -> dict[str, Any]:
    work = {"passes": 40.0, "conversions": 1500.0, "macs": 11e6}
    found: dict[str, Any] = {
        "data": "digits",
        "rule": rule,
        "substrate": substrate,
        "control": control,
        "metric": "error",
        "test_error_mean": 0.25,
        "test_error_std": 0.013,
        "trained_digital": 2442,
        "trained_physical": 0,
        "work": {"update": work, "inference": {"passes": 2.0, "conversions": 202.0, "macs": 2496.0}},
        "difference_without_physics": None,
        "difference_with_linear_physics": None,
        "cosine": {"layer_1": 0.5},
        "residual_max": 0.0,
        "unsettled_fraction": 0.0,
        "device_passes": 1200.0,
        "modelled_time_s": None,
        "energy_J": {"P10": 1e-6, "P50": 2e-6, "P90": 3e-6},
        "energy_partial": False,
        "rate_at_edge": False,
        "test_rows": 360,
    }
    return found | changes


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Two rules on one network, the second with a physical parameter that the first has not; ablations; the baseline."""
    better, worse = difference(-0.28, 0.26, "better"), difference(0.3, 0.02, "worse")
    unknown, equal = difference(-0.04, 0.06, "not told apart"), difference(0.002, 0.004, "equal")
    return [
        row("first", "net", difference_without_physics=better, difference_with_linear_physics=unknown),
        row("second", "net", trained_physical=8, difference_without_physics=worse, difference_with_linear_physics=equal),
        row("first", "other", difference_without_physics=better, difference_with_linear_physics=equal),
        row("base", "digital", control=True, trained_digital=4810),
        row("shuffled-labels", "net", control=True),
        row("first without physics", "net", control=True, trained_digital=5450, rate_at_edge=True),
        row("first with linear physics", "net", control=True),
        row("second without physics", "net", control=True),
    ]


def printed(table: Any, width: int = 120) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_each_rule_stands_beside_itself_without_its_physics(rows: list[dict[str, Any]], width: int) -> None:
    lines = printed(physics_table(rows, width=width), width)
    assert not any("…" in line for line in lines)
    first, *_ = (line for line in lines if line.split()[:1] == ["first"])
    assert "25.0 ±1.3" in first
    assert "-28.0 better" in first
    assert "-4.0 not told apart" in first
    assert ("[-54.0, -2.0]" in first) == (width == 120), "intervals take a line of their own where it is narrow"
    assert any("[-54.0, -2.0]" in line and "[-10.0, +2.0]" in line for line in lines)
    assert not any("digital" in line or "shuffled" in line for line in lines), "no rule of theirs has a physics to lose"


def test_a_metric_that_is_no_rate_keeps_its_digits() -> None:
    assert difference_text(difference(-0.0123, 0.01, "better"), 1.0) == "-0.012 better [-0.022, -0.002]"
    assert difference_text(difference(0.0123, None, "not told apart"), 100.0) == "+1.2 not told apart"
    assert difference_text(None, 1.0) == "-"


@pytest.mark.parametrize("width", [80, 120])
def test_what_it_takes_has_a_line_for_every_row_under_its_rule(rows: list[dict[str, Any]], width: int) -> None:
    lines = printed(work_table(rows, batch_size=20), width)
    assert not any("…" in line for line in lines)
    assert "update of 20 rows" in lines[0]
    names = [re.split(r" {2,}", line.strip())[0] for line in lines]
    place = names.index("net")
    assert names[place + 1 : place + 7] == [
        "first", "without physics", "with linear physics", "second", "without physics", "(shuffled-labels)",
    ]  # fmt: skip
    assert lines[place + 1].split()[-8:] == ["2", "442", "40", "1.5k", "11M", "2", "200", "2.5k"]
    assert "5 450" in lines[place + 2]
    assert "2 442 + 8" in lines[place + 4]
    rows[0]["work"]["inference"] = None
    first = next(line for line in printed(work_table(rows), width) if line.split()[:1] == ["first"])
    assert first.split()[-4:] == ["11M", "-", "-", "-"]


def test_parameters_are_told_apart() -> None:
    assert parameters_text({"trained_digital": 0, "trained_physical": 8}) == "0 + 8"
    assert parameters_text({"trained_digital": 12345, "trained_physical": 0}) == "12 345"


def test_sentences_say_where_the_physics_helps_and_where_not(rows: list[dict[str, Any]]) -> None:
    assert physics_sentences(rows) == [
        "Compared with no physics, the physics helps first on net; first on other.",
        "Compared with no physics, the physics harms second on net.",
        "Compared with linear physics, the physics makes no difference to second on net; first on other.",
        "Compared with linear physics, these runs do not tell whether the physics helps or harms first on net.",
    ]
    assert physics_sentences(rows[3:]) == []
    assert has_ablations(rows)
    assert not has_ablations(rows[3:])


def test_the_main_table_leaves_ablations_to_the_other(rows: list[dict[str, Any]]) -> None:
    settings: dict[str, Any] = {"quick": True, "epochs": 1, "rate_factors": [1.0], "seeds": 3, "chips": 1, "data": "digits"}
    settings["notes"] = ["rule 'first' cannot train substrate 'a': a lacks capability Twin", "something else"]
    rows[0]["data_notes"] = rows[1]["data_notes"] = "made of formulas"
    table, notes = comparison_table(rows, settings, width=120)
    lines = printed(table)
    assert "data: made of formulas" in lines[1]
    assert sum("first" in line for line in lines) == 2
    assert not any("physics" in line for line in lines)
    assert any("(shuffled-labels)" in line for line in lines)
    assert any(note.endswith("may lie beyond: first (without physics) on net.") for note in notes)
    assert notes[-2:] == ["Left out: first on a: lacks capability Twin.", "Something else."]


def test_a_reason_stands_once() -> None:
    notes = [
        "rule 'r' cannot train substrate 'FILE.py:a': FILE.py:a lacks capability Twin and trait mapped",
        "rule 'r' cannot train substrate 'b': b lacks capability Twin and trait mapped",
        "rule 's' cannot train substrate 'b': b lacks capability Twin",
        "control twin-deployed left out on FILE.py:a: FILE.py:a lacks capability Twin and trait mapped",
        "control twin-deployed left out on b: b lacks capability Twin and trait mapped",
        "control readout-only left out on b: there is no hidden layer",
        "kept rate of r on b (2) lies at the edge of the rates tried",
    ]
    found, rest = split_notes(notes)
    assert found == [
        LeftOut(("r", "twin-deployed"), ("FILE.py:a", "b"), "lacks capability Twin and trait mapped"),
        LeftOut(("s",), ("b",), "lacks capability Twin"),
        LeftOut(("readout-only",), ("b",), "there is no hidden layer"),
    ]
    assert rest == notes[-1:]
    assert left_out_lines(found)[0] == "Left out: r, twin-deployed on FILE.py:a, b: lacks capability Twin and trait mapped."


def test_every_note_about_a_control_is_understood() -> None:
    _, notes = plan_rows(RunConfig(), ["hopfield-ideal", "digital-feedforward"], ["backpropagation"])
    assert notes
    found, rest = split_notes(notes)
    assert rest == []
    assert {name for one in found for name in one.names} >= {"implicit-differentiation"}


def test_names_of_ablations() -> None:
    assert ablation_of("delta-rule without physics") == ("delta-rule", "without physics")
    assert ablation_of("FILE.py:mine with linear physics") == ("FILE.py:mine", "with linear physics")
    assert ablation_of("readout-only") is None
