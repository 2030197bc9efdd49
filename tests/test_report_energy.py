"""What a report says of joules: partial figures, constants and their sources, and who wins against the digital baseline."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_example import EPOCHS, ROWS
from report_pages import Page, page_of, two_lines

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.energy import Quantiles
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report_text import energy_sentence, times, verdict

pytest_plugins = ["report_fixtures"]


def test_partial_energies_are_marked_and_do_not_win(example: tuple[Path, Any]) -> None:
    # Ideal converters have no price: a network that uses them has a lower bound, which can lose but not win.
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    assert len(page.find("equilibrium-propagation", "partial")) >= 3
    assert page.find("state ADC", "adc_conversion_ideal")
    assert all("partial" not in cell for row in page.find("bp-feedforward") for cell in row)
    assert "the substrate loses to the digital baseline in 4 of 4 lines" in page.text
    assert "loses to the digital baseline in 0 of 4 lines, wins in 2, no verdict in 2" in page.text


def test_nothing_priced_is_no_figure(small: Callable[..., Path], costs: CostTable) -> None:
    line, baseline = two_lines()
    counts = {("train/free", "substrate", "state ADC", "adc_conversion_ideal"): 10.0}
    inference = {("infer", *key[1:]): amount for key, amount in counts.items()}
    page = page_of(small([dataclasses.replace(line, training=counts, inference=inference), baseline]), costs)
    row = next(cells for cells in page.find(line.name, "master copy"))
    assert sum("no figure" in cell for cell in row) == 2
    assert not any(" 0 J" in cell for cell in row)
    assert "No figure against bp-feedforward." in page.text


def test_sources_list_exactly_the_constants_used(pair_page: Page, costs: CostTable) -> None:
    page = pair_page
    wanted = {event for line in two_lines() for key in (*line.training, *line.inference) if (event := key[3])}
    ids = {cost.id for event in wanted if (cost := costs.for_event(event)) is not None}
    header = next(i for i, row in enumerate(page.rows) if row and row[0].startswith("Constant"))
    listed = {row[0].split()[-1] for row in page.rows[header + 1 : header + 1 + len(ids)]}
    assert listed == ids
    for cost in (costs[name] for name in ids):
        (row,) = page.find(cost.id, cost.source)
        assert any(cost.boundary in cell for cell in row)
        assert ("recalled" in row[6]) == (cost.status == "recalled")


def test_a_replaced_constant_changes_the_page(small: Callable[..., Path], costs: CostTable, tmp_path: Path) -> None:
    line, baseline = two_lines()
    only = {("train/free", "substrate", "state ADC", "adc_conversion_8b"): 10.0}
    out = small([dataclasses.replace(line, training=only), baseline])
    mine = CostTable({**costs.rows, "adc_8b": dataclasses.replace(costs["adc_8b"], low=1e-12, typical=1e-12, high=1e-12)})
    page = page_of(out, mine)
    # 10 conversions per row and epoch at exactly 1 pJ.
    assert page.find(line.name, "master copy", engineering(10.0 * ROWS * EPOCHS * 1e-12, "J"))


def test_the_digital_baseline_is_shown_in_its_best_and_worst_case(pair_page: Page, costs: CostTable) -> None:
    mac, sram = costs["mac_fp32_7nm"].typical, costs["byte_sram_32kb_7nm"].typical
    states, words = 128 + 74, 64 * 65 + 10 * 65
    batch = 4736 * mac + 4 * (states + words / 100) * sram
    single = 4736 * mac + 4 * (states + words) * sram
    best = 4736 * costs["mac_int8_7nm"].typical + (states + words / 100) * sram
    (row,) = pair_page.find(*(engineering(value, "J") for value in (batch, single, best)))
    assert row[0].split() == ["bp-feedforward"]
    assert any("100 rows per call" in cell for cell in pair_page.find("bp-feedforward", "master copy")[0])
    assert "in its best case, int8, 100 rows per call" in pair_page.text
    assert "in its worst, fp32, 1 row per call" in pair_page.text
    assert "assumed to keep its accuracy: not checked here" in pair_page.text
    said = re.search(
        r"Against its best case (the substrate loses|no verdict), against its worst (the substrate wins|no verdict)\.",
        pair_page.text,
    )
    assert said is not None
    ratios = re.search(
        r"([0-9.]+) times \(P10–P90: ([0-9.]+) to ([0-9.]+)\) that of bp-feedforward in its best case", pair_page.text
    )
    assert ratios is not None
    assert (said[1] == "the substrate loses") == (float(ratios[2]) > 1)
    assert "The figure of the run reads the weights once per 100 rows." in pair_page.text


def test_the_headline_says_on_what_the_total_rests(pair_page: Page, costs: CostTable) -> None:
    amplifier = costs["amplifier_static"]
    assert "rests on one constant" in pair_page.text
    assert f"{amplifier.quantity}; 5.00 µW to 500 µW, a 100-fold range, recalled." in pair_page.text


def test_a_total_that_rests_on_nothing_alone_says_nothing(small: Callable[..., Path], costs: CostTable) -> None:
    line, baseline = two_lines()
    exact = CostTable({name: dataclasses.replace(one, low=one.typical, high=one.typical) for name, one in costs.rows.items()})
    assert "rests on one constant" not in page_of(small([line, baseline]), exact).text


@pytest.mark.parametrize(
    ("ratio", "partial", "expected"),
    [
        ((2.0, 3.0, 5.0), (False, False), "loses"),
        ((2.0, 3.0, 5.0), (True, False), "loses"),
        ((2.0, 3.0, 5.0), (False, True), "undecided"),
        ((0.1, 0.2, 0.5), (False, False), "wins"),
        ((0.1, 0.2, 0.5), (True, False), "undecided"),
        ((0.5, 1.0, 2.0), (False, False), "undecided"),
    ],
)
def test_verdict(ratio: tuple[float, float, float], partial: tuple[bool, bool], expected: str) -> None:
    figure = Quantiles(*ratio)
    assert verdict(figure, partial) == expected
    sentence, words = energy_sentence("Analog", figure, "bp-feedforward", "at equal accuracy", partial)
    assert f"{times(ratio[1])} times that of bp-feedforward" in sentence
    assert words == ("" if expected == "undecided" else f"Analog {expected}.")
    assert ("lower bound" in sentence) == any(partial)
