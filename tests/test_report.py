"""The HTML report: every figure of a comparison is on the page, nothing is loaded, nothing is claimed that is not known."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report_example import DATA_NOTES
from report_pages import Page, page_of, two_lines

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.plots import engineering
from inmaterio.experiments.report import quick_note, write_comparison_report
from inmaterio.experiments.report_figures import PARTS_SHOWN, _part_look

pytest_plugins = ["report_fixtures"]


def test_every_row_and_its_figures_are_on_the_page(example: tuple[Path, dict[str, Any]]) -> None:
    out, document = example
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert len(document["rows"]) == 11
    for row in document["rows"]:
        error = f"{100 * row['test_error_mean']:.2f} % ± {100 * row['test_error_std']:.2f} % (n = 2)"
        results = page.find(row["rule"], error)
        assert results, row["rule"]
        for value in row["cosine"].values():
            assert any(("–" if value is None else f"{value:.3f}") in cell for cell in results[0])
        taken = page.find(row["rule"], f"{row['device_passes']:,.0f}".replace(",", " "), f"{row['updates']:.0f}")
        joules = engineering(row["energy_J"]["P50"], "J"), engineering(row["energy_inference_J"]["P50"], "J")
        span = f"{engineering(row['energy_J']['P10'], 'J')} – {engineering(row['energy_J']['P90'], 'J')}"
        fitting = [cells for cells in taken if all(any(one in cell for cell in cells) for one in (*joules, span))]
        assert fitting, row["rule"]
        seconds = row["modelled_time_s"]
        assert any(
            any(("not modelled" if seconds is None else engineering(seconds, "s")) in cell for cell in cells) for cells in fitting
        )
        for run in row["runs"]:
            assert run in page.text
    assert "90.0 % (digits)" in page.text


def test_page_is_whole_and_loads_nothing(example: tuple[Path, dict[str, Any]]) -> None:
    text = (example[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.lstrip().startswith("<!doctype html>")
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == page.tags["iframe"] == 0
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#"), (tag, name, value)
    ids = Counter(value for _, name, value in page.attributes if name == "id")
    assert max(ids.values()) == 1
    referred = {value[1:] for _, name, value in page.attributes if name == "href"} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert referred <= set(ids)
    assert page.tags["svg"] > 20
    assert "prefers-color-scheme: dark" in text
    # No stand-in colour is left, and no colour but the page's own.
    assert not re.search(r"#0[1-6]0[0-9][0-9a-f]{2}\b", text)


def test_two_writings_are_equal_to_the_byte(changed: Callable[..., Path], costs: CostTable, tmp_path: Path) -> None:
    out = changed(lambda document: None)
    first = write_comparison_report(out, costs).read_bytes()
    elsewhere = tmp_path / "elsewhere"
    out.rename(elsewhere)
    assert write_comparison_report(elsewhere, costs).read_bytes() == first


def test_quick_is_said_only_when_it_was(changed: Callable[..., Path], costs: CostTable, example: tuple[Path, Any]) -> None:
    said = "--quick: 6 epochs, 3 rates, 2 seeds; settings too small for conclusions"
    assert said in (example[0] / "report.html").read_text(encoding="utf-8")
    assert "too small for conclusions" not in page_of(changed(lambda d: d["settings"].update(quick=False)), costs).text


def test_quick_note_tells_the_settings_that_were_used() -> None:
    settings = {"quick": True, "epochs": 15, "rate_factors": [0.5, 1.0, 2.0], "seeds": 2}
    assert quick_note(settings) == "--quick: 15 epochs, 3 rates, 2 seeds; settings too small for conclusions"
    assert quick_note(settings | {"seeds": 1}).count("1 seed;") == 1
    assert quick_note(settings | {"quick": False}) == quick_note({}) == ""


def test_controls_are_marked_apart(example: tuple[Path, Any]) -> None:
    text = (example[0] / "report.html").read_text(encoding="utf-8")
    controls = re.findall(r'<tr class="control">\s*<th scope="row">([a-z-]+)', text)
    assert {"readout-only", "shuffled-labels", "twin-deployed", "bp-feedforward"} == set(controls)
    assert not set(re.findall(r'<tr>\s*<th scope="row">([a-z-]+)', text)) & set(controls)


def test_unsettled_lines_are_marked_and_settled_ones_are_not(example: tuple[Path, Any]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    marked = page.find("unsettled 3.4 %")
    assert marked
    assert {row[0].split()[0] for row in marked} == {"contrastive-hebbian"}
    assert len(marked) == 2  # one substrate, two tables


def test_names_are_escaped(small: Callable[..., Path], costs: CostTable) -> None:
    evil = '<script>alert("1")</script> & $x_1$'
    line, baseline = two_lines()
    page = page_of(small([dataclasses.replace(line, name=evil), baseline]), costs)
    assert page.tags["script"] == 0
    assert page.find(evil)
    assert evil in "".join(value for tag, name, value in page.attributes if name == "aria-label")


def test_parts_differ_in_colour(example: tuple[Path, Any], costs: CostTable) -> None:
    looks = [_part_look(place) for place in range(PARTS_SHOWN)]
    assert len({look.slot for look in looks}) == PARTS_SHOWN
    style = (example[0] / "report.html").read_text(encoding="utf-8")
    for look in looks:
        assert style.count(f"--series-{look.slot}: #") == 2, "light and dark"


def test_legends_stand_once_per_section_and_axes_say_training(example: tuple[Path, Any]) -> None:
    text = (example[0] / "report.html").read_text(encoding="utf-8")
    assert text.count('<ul class="legend">') == 4  # curves, cosines, and rules and components of energy
    assert "error on TRAINING rows" in text
    assert ">training error<" not in text


def test_rates_at_an_edge_are_marked(changed: Callable[..., Path], costs: CostTable) -> None:
    out = changed(lambda d: (d["rows"][0].update(rate_at_edge=True, rates_tried=7), d["rows"][1].update(rates_tried=5)))
    page = page_of(out, costs)
    assert [row[0].split()[0] for row in page.find("at edge", "master copy")] == ["equilibrium-propagation"]
    assert page.find("equilibrium-propagation", "× 1, of 7 tried")
    assert page.find("bp-feedforward", "× 1, of 5 tried")


def test_what_is_left_out_and_what_has_to_be_known_of_the_data(example: tuple[Path, dict[str, Any]]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    assert page.find("in-situ-adjoint", "hopfield-ideal", "lacks capability Adjoint")
    assert page.find("implicit-differentiation", "hopfield-imperfect", "lacks trait symmetric")
    assert "kept rate of delta-rule on hopfield-ideal (2) lies at the edge" in page.text
    assert f"Data: {DATA_NOTES}." in page.text
    assert "What the physics is worth" not in page.text, "none of these has an ablation"
    assert "Digital maps only" not in page.text
