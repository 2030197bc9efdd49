"""A page about run directories without a comparison."""

import math
from pathlib import Path
from typing import Any

import pytest
from report_pages import Page

from inmaterio.devices.costs import CostTable
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.report import write_run_report
from inmaterio.experiments.run import run as do_run
from inmaterio.experiments.run_record import read_record

pytest_plugins = ["report_fixtures"]


def test_run_report_groups_seeds_and_names_controls(
    example: tuple[Path, dict[str, Any]], costs: CostTable, tmp_path: Path
) -> None:
    out, document = example
    rows = [row for row in document["rows"] if row["substrate"] == "hopfield-imperfect" and row["rule"] != "contrastive-hebbian"]
    rows.append(document["rows"][-1])
    folders = [out / run for row in rows for run in row["runs"]]
    text = write_run_report(folders, tmp_path / "runs.html", costs).read_text(encoding="utf-8")
    page = Page(text)
    for row in rows:
        assert page.find(row["rule"], f"{100 * row['test_error_mean']:.2f} %", "(n = 2)")
    assert "too small for conclusions" not in text
    single = Page(write_run_report(folders[:1], tmp_path / "one.html", costs).read_text(encoding="utf-8"))
    assert single.find("equilibrium-propagation", "(n = 1)")
    assert "Minus" not in single.text


def test_run_report_needs_a_run(costs: CostTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run directory"):
        write_run_report([], tmp_path / "runs.html", costs)


def test_the_notes_of_a_data_set_reach_a_run(tmp_path: Path, costs: CostTable) -> None:
    config = RunConfig(
        data=DataConfig("parity-3?rows=80"),
        substrate=SubstrateConfig("digital-feedforward", (4,)),
        rule=RuleConfig("backpropagation"),
        training=TrainingConfig(epochs=1),
    )
    folder = do_run(config, tmp_path)
    page = Page(write_run_report([folder], tmp_path / "page.html", costs).read_text(encoding="utf-8"))
    assert "Data: made: normal noise" in page.text
    record = read_record(folder)
    assert record.data_notes.startswith("made: normal noise")
    assert (record.trained_digital, record.trained_physical) == (sum(map(math.prod, record.shapes.values())), 0)
