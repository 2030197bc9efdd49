"""What a report says of physical networks: what the physics is worth, and what is trained and taken."""

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_example import physical_lines, write_example
from report_pages import Page

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.physics_plots import Difference, differences_svg, reach
from inmaterio.experiments.plots import Look, engineering
from inmaterio.experiments.report import write_comparison_report, write_run_report
from inmaterio.experiments.report_entries import entries_of
from inmaterio.experiments.report_inputs import read_comparison
from inmaterio.experiments.report_physics import _dot, count_sentences, held_entries
from inmaterio.experiments.tables import short

pytest_plugins = ["report_fixtures"]


@pytest.fixture(scope="module")
def physical(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    """A reported comparison of two physical networks, each rule beside itself without physics and with linear physics."""
    out = tmp_path_factory.mktemp("physical")
    document = write_example(out, costs, physical_lines(), seeds=3)
    write_comparison_report(out, costs)
    return out, document


@pytest.fixture(scope="module")
def physical_page(physical: tuple[Path, dict[str, Any]]) -> Page:
    return Page((physical[0] / "report.html").read_text(encoding="utf-8"))


def test_what_the_physics_is_worth_by_hand(physical_page: Page) -> None:
    # Errors 0.10 against 0.20 (each times 1, 1.06, 1.12): differences -10, -10.6 and -11.2 points, t(2) = 4.3027.
    half = 4.30265 * 0.6 / np.sqrt(3)
    found = physical_page.find("backpropagation", "10.60 %", "21.20 %", f"−{10.6 + half:.2f} to −{10.6 - half:.2f}, 3 seeds")
    assert len(found) == 2, "once per substrate"
    for cells in found:
        assert "better" in cells[4]
        assert "equal" in cells[5], "0.10 against 0.102 is within a point, whatever the seed"
    (quiet, tunable) = physical_page.find("delta-rule", "31.80 %", "15.90 %", "42.40 %")
    assert "worse" in quiet[4]
    assert "better" in quiet[5]
    assert "330 + 8 physical" in tunable[1]
    assert "8 physical" not in quiet[1]
    assert "650" in quiet[2]
    text = physical_page.text
    assert (
        "Compared with no physics, the physics helps backpropagation on quiet-network; backpropagation on tunable-network."
        in text
    )
    assert "Compared with no physics, the physics harms delta-rule on quiet-network; delta-rule on tunable-network." in text
    assert "the physics makes no difference to backpropagation on quiet-network" in text


def test_two_pairs_draw_no_interval_of_what_the_physics_is_worth(physical: tuple[Path, dict[str, Any]], costs: CostTable) -> None:
    entries = entries_of(read_comparison(physical[0]), costs)
    for runs, known in ((2, False), (3, True)):
        fewer = [dataclasses.replace(entry, runs=entry.runs[:runs]) for entry in entries]
        dots = [_dot(one) for one in held_entries(fewer)]
        assert dots
        assert all((dot.low is not None) is known and (dot.high is not None) is known for dot in dots)


def test_networks_stand_in_blocks_with_their_parameters(physical_page: Page) -> None:
    text = physical_page.text
    assert "Parameters that are trained: backpropagation 2 442; delta-rule 330." in text
    assert "Parameters that are trained: backpropagation 2 442 + 8 physical; delta-rule 330 + 8 physical." in text
    assert "Without physics: 320 more (backpropagation, delta-rule)." in text
    assert "With linear physics: as many (backpropagation, delta-rule)." in text
    assert "Without physics: 312 more (backpropagation, delta-rule)." in text
    assert "With linear physics: 8 fewer (backpropagation, delta-rule)." in text
    titles = [row[0].split("data")[0].strip() for row in physical_page.rows if len(row) == 1]
    both = ["Digital maps only", "quiet-network", "Physical parameters too", "tunable-network", "Digital network"]
    assert [title for title in titles[: len(titles) // 2] if title in both][:5] == both


def test_numbers_of_parameters_that_differ_within_a_block_are_said(
    physical: tuple[Path, dict[str, Any]], costs: CostTable
) -> None:
    entries = entries_of(read_comparison(physical[0]), costs)
    said = count_sentences(entries, ["quiet-network", "tunable-network"])
    assert "not equal on all 2 substrates" in said[0]
    assert "delta-rule 330 on quiet-network to 330 + 8 physical on tunable-network, which differ by 8, or 2.4 %" in said[0]
    assert said[1] == "Without physics: 312 more to 320 more (backpropagation, delta-rule)."


def test_what_it_takes_has_a_line_for_every_row(physical: tuple[Path, dict[str, Any]], physical_page: Page) -> None:
    start = next(i for i, row in enumerate(physical_page.rows) if any("Per update of 20 rows" in cell for cell in row))
    lines = [row for row in physical_page.rows[start + 2 :] if len(row) == 8][: len(physical[1]["rows"])]
    names = [row[0].strip() for row in lines]
    each = ["backpropagation", "without physics", "with linear physics", "delta-rule", "without physics", "with linear physics"]
    assert names == [*each, *each, "bp-feedforward"]
    work = physical[1]["rows"][0]["work"]
    wanted = [short(work[part][name]) for part in ("update", "inference") for name in ("passes", "conversions", "macs")]
    assert [cell.strip() for cell in lines[0][2:]] == wanted
    assert "classes × maps" not in physical_page.text, "no rule here predicts by goodness"


def test_ablations_stand_apart_and_are_whole(physical: tuple[Path, dict[str, Any]], physical_page: Page) -> None:
    text = (physical[0] / "report.html").read_text(encoding="utf-8")
    legends = re.findall(r'<ul class="legend">(.*?)</ul>', text, flags=re.DOTALL)
    assert legends
    assert not any("physics" in one for one in legends)
    folded = text[text.index("<summary>All figures of the rules without physics") :]
    folded = Page(folded[: folded.index("</details>")].join(("<details>", "</details>"))).text
    for line in physical[1]["rows"]:
        if "physics" in line["rule"]:
            assert f"{line['rule']} {100 * line['test_error_mean']:.2f} %" in folded
            assert engineering(line["energy_J"]["P50"], "J") in folded
        else:
            assert f"{line['rule']} {100 * line['test_error_mean']:.2f} %" not in folded
        for run in line["runs"]:
            assert run in physical_page.text
    ids = Counter(value for _, name, value in physical_page.attributes if name == "id")
    assert max(ids.values()) == 1
    assert not re.search(r"#0[1-6]0[0-9][0-9a-f]{2}\b", text)


def test_runs_of_an_ablation_are_named_and_held_against_their_rule(
    physical: tuple[Path, dict[str, Any]], costs: CostTable, tmp_path: Path
) -> None:
    rows = physical[1]["rows"][:3]
    folders = [physical[0] / run for row in rows for run in row["runs"]]
    page = Page(write_run_report(folders, tmp_path / "runs.html", costs).read_text(encoding="utf-8"))
    assert page.find("backpropagation", "10.60 %", "21.20 %", "better")
    alone = Page(write_run_report(folders[3:6], tmp_path / "alone.html", costs).read_text(encoding="utf-8"))
    assert alone.find("backpropagation without physics", "21.20 %")
    assert "What the physics is worth" not in alone.text


def test_intervals_that_go_on_end_in_an_arrow_and_zero_is_in_the_middle() -> None:
    near, far = Difference("a", Look(1), -0.1, -0.15, -0.05, "b"), Difference("c", Look(2), 0.1, -2.0, 2.0, "d")
    half = reach([near, far], 0.01)
    assert half == pytest.approx(1.08 * 2.5 * 0.1)
    assert reach([near], 0.01) == pytest.approx(1.08 * 0.15)
    assert reach([Difference("a", Look(1), 0.0, None, None, "")], 0.01) == pytest.approx(1.08 * 0.02)
    options: dict[str, Any] = {"name": "n", "title": "t", "heading": "h", "x_label": "x", "half": half, "margin": 0.01}
    svg = differences_svg([near, far], percent=True, **options)
    for words in ("physics helps", "physics harms", ">a<", ">d<", ">0<", "+20", "−20"):
        assert words in svg
    assert "nan" not in svg
    assert differences_svg([], percent=True, **options) == ""
