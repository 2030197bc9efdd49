"""What a report says of spiking networks: events per inference, published chips, and no words of other hardware."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from report_example import example_lines, write_example
from report_pages import Page

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.energy import ANY_HARDWARE, NOT_MODELLED
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report import write_comparison_report, write_run_report

pytest_plugins = ["report_fixtures"]

SPIKING = {
    ("train/free", "substrate", "weight_1", "synaptic_event"): 70.0,
    ("infer", "substrate", "weight_1", "synaptic_event"): 3000.0,
    ("infer", "substrate", "weight_1", "graded_synaptic_event"): 40.0,
    ("infer", "substrate", "neurons 1", "spike"): 25.0,
}


@pytest.fixture(scope="module")
def spiking(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    """A rule with delays, the same without, its shuffled control and the baseline, of four seeds."""
    out = tmp_path_factory.mktemp("spiking")
    counts = [{key: one for key, one in SPIKING.items() if (key[0] == "infer") is inferred} for inferred in (False, True)]
    line = dataclasses.replace(example_lines()[0], name="e-prop", substrate="spiking-ideal", rule="e-prop", final=0.02)
    line = dataclasses.replace(line, training=counts[0], inference=counts[1])
    without = dataclasses.replace(line, name="e-prop?delays=none", final=0.4, options={"delays": "none"})
    shuffled = dataclasses.replace(line, name="shuffled-labels", control=True, final=0.8, changes={"labels": "shuffled"})
    document = write_example(out, costs, [line, without, shuffled, example_lines()[-1]], seeds=4)
    write_comparison_report(out, costs)
    return out, document


@pytest.fixture(scope="module")
def shuffled_page(spiking: tuple[Path, dict[str, Any]], costs: CostTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page about one run with shuffled labels."""
    out, document = spiking
    page = tmp_path_factory.mktemp("shuffled") / "one.html"
    return write_run_report([out / document["rows"][2]["runs"][0]], page, costs).read_text(encoding="utf-8")


def test_events_per_inference_by_hand(spiking: tuple[Path, dict[str, Any]], costs: CostTable) -> None:
    page = Page((spiking[0] / "report.html").read_text(encoding="utf-8"))
    rows = page.find("3\N{NO-BREAK SPACE}040")
    assert [row[0].strip() for row in rows] == ["e-prop", "e-prop?delays=none", "shuffled-labels"]
    assert all(row[5].strip() == "25" for row in rows)
    assert engineering(spiking[1]["rows"][0]["energy_inference_J"]["P50"], "J") in rows[0][6]
    assert "spiking-ideal needs delays: without any, 43.6 % of errors, with learned ones 2.2 %" in page.text
    # Differences 0.38 x (1, 1.06, 1.12, 1.18): against the first rule, not against the baseline.
    assert "+41.42" in rows[1][2]
    assert page.find("bp-feedforward", "–", "4\N{NO-BREAK SPACE}810")


def test_published_chips_stand_with_scope_grade_source_and_marks(spiking: tuple[Path, dict[str, Any]]) -> None:
    page = Page((spiking[0] / "report.html").read_text(encoding="utf-8"))
    first = next(i for i, row in enumerate(page.rows) if row and row[0].strip() == "TrueNorth")
    truenorth = page.rows[first]
    assert engineering(3040 * 26e-12, "J", 3) in truenorth[5], "all-in, graded operations too"
    assert "all-in" in truenorth[7] and "measured" in truenorth[7] and "Merolla" in truenorth[8]
    (loihi, *_) = page.find("Loihi", "per term", "pre-silicon SPICE")
    assert "partial" in loihi[5] and "No price: graded synaptic event." in loihi[8]
    assert page.find("Darwin3 †", "recalled †")
    assert page.find("45 nm adders †", "recalled †")
    assert not page.find("Loihi †")
    assert page.text.count("on spiking-ideal, first run") == 2, "one for each rule, none for the control"


def test_pages_without_spikes_have_no_events(example: tuple[Path, Any]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    assert "Events and joules per inference" not in page.text
    assert "Sharing of A/D converters" in page.text


def test_a_spiking_page_speaks_of_no_converters(spiking: tuple[Path, Any]) -> None:
    page = Page((spiking[0] / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"A/D|settled: it is|\b[Aa]nalog\b", page.text)
    assert "hops_per_spike" in page.text and "host's link" in page.text
    assert all(sum(one.startswith(words) for one in NOT_MODELLED) == 1 for words in ANY_HARDWARE)


def test_one_run_explains_no_pairs_and_links_to_what_is_there(shuffled_page: str) -> None:
    page = Page(shuffled_page)
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = {value.removeprefix("#") for tag, name, value in page.attributes if tag == "a" and name == "href"}
    assert links <= ids
    for words in ("--splits", "Differences are", "mean ± standard deviation", "a pair is"):
        assert words not in page.text
    assert "e-prop (shuffled-labels): 1 run" in page.text
    assert "Trained by e-prop (shuffled-labels): spiking-ideal" in page.text
    assert page.find("TrueNorth", "all-in"), "alone, a control has its chips"


def test_links_of_a_comparison_lead_somewhere(spiking: tuple[Path, Any]) -> None:
    page = Page((spiking[0] / "report.html").read_text(encoding="utf-8"))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for tag, name, value in page.attributes if tag == "a" and name == "href"} <= set(ids)
