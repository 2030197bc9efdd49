"""Paired differences on a report's page: by hand, and no more claimed than the pairs can tell."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from report_pages import Page, page_of, two_lines

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.report import pairing_note
from inmaterio.experiments.report_entries import Entry, entries_of, versus
from inmaterio.experiments.report_inputs import read_comparison

pytest_plugins = ["report_fixtures"]


def test_paired_difference_by_hand(pair_page: Page) -> None:
    # Errors 0.042 (1, 1.06, 1.12) and 0.021 (the same): differences 2.1, 2.226 and 2.352 points, t(2) = 4.3027; the half
    # width of 0.313 is above one of 360 rows, 0.278.
    page = pair_page
    half = 4.30265 * np.std([2.1, 2.226, 2.352], ddof=1) / np.sqrt(3)
    (row,) = page.find("equilibrium-propagation", "+2.23", f"+{2.226 - half:.2f} to +{2.226 + half:.2f}, 3 seeds")
    assert any("worse" in cell for cell in row)
    assert "at worse accuracy (4.45 % against 2.23 % error)" in page.text
    assert "worse in 1 of 1." in page.text


def test_two_pairs_decide_nothing_on_the_page(example: tuple[Path, Any]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    rows = page.find("equilibrium-propagation", "2 seeds: decides nothing")
    assert len(rows) == 2
    for row in rows:
        assert not any(re.search(r"\b(better|worse|equal)\b", cell) for cell in row)
    assert "accuracy not told apart" in page.text
    assert "not told apart in 4 of 4." in page.text


def test_too_few_pairs_have_no_interval(example: tuple[Path, Any]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    cells = [cell for row in page.rows for cell in row if "decides nothing" in cell]
    assert cells
    assert not any(" to " in cell for cell in cells)


def test_equal_accuracy_is_the_verdict_everywhere(small: Callable[..., Path], costs: CostTable) -> None:
    line, baseline = two_lines()
    out = small([dataclasses.replace(line, final=baseline.final + 0.002), baseline], seeds=4)
    page = page_of(out, costs)
    assert page.find("equilibrium-propagation", "equal")
    assert "Equal to bp-feedforward within 1 percentage point" in page.text
    assert page.text.count("at equal accuracy within 1 percentage point (2.51 % against 2.29 % error)") == 2
    assert "not told apart from" not in page.text.lower()


def test_the_page_says_what_a_pair_is_and_how_far_test_rows_tell(pair_page: Page) -> None:
    assert "a pair is a seed, chips averaged" in pair_page.text
    assert "hold for these 360 test rows" in pair_page.text
    # Mean error of the baseline 0.021 x 1.06 on 360 rows: Wilson 1.13 to 4.35 %, by scipy.
    interval = scipy.stats.binomtest(8, 360).proportion_ci(0.95, method="wilson")  # 8 of 360 are 2.22 %
    (row,) = pair_page.find("bp-feedforward", "360 rows:")
    low, high = map(float, re.findall(r"360 rows: ([0-9.]+) to ([0-9.]+) %", " ".join(row))[0])
    assert (low, high) == pytest.approx((100 * interval.low, 100 * interval.high), abs=0.03)


def test_splits_are_pairs_where_there_are_several(changed: Callable[..., Path], costs: CostTable) -> None:
    comparison = read_comparison(changed(lambda document: None))
    entry, other = entries_of(comparison, costs)

    def spread_over(one: Entry) -> Entry:
        runs = tuple(
            dataclasses.replace(
                run,
                config=dataclasses.replace(run.config, seed=seed, data=dataclasses.replace(run.config.data, split_seed=split)),
                test_error=run.test_error + 0.01 * split,
            )
            for split, run in enumerate(one.runs)
            for seed in range(4)
        )
        return dataclasses.replace(one, runs=runs)

    held = versus(spread_over(entry), spread_over(other))
    assert held.error is not None
    assert (held.pair, held.error.count) == ("split", 3), "not 12 seeds"
    assert versus(entry, other).pair == "seed"
    assert "A pair is a split: there are 3" in pairing_note([spread_over(entry)])
