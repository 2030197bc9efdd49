"""The HTML report: every figure of a comparison is on the page, nothing is loaded, nothing is claimed that is not known."""

import copy
import dataclasses
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from report_example import DATA_NOTES, EPOCHS, ROWS, Line, example_lines, physical_lines, write_example

from inmaterio.devices.costs import CostTable, load_costs
from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.energy import ANY_HARDWARE, NOT_MODELLED, Quantiles
from inmaterio.experiments.physics_plots import Difference, differences_svg, reach
from inmaterio.experiments.plots import Curve, Look, curves_svg, engineering, tick_label
from inmaterio.experiments.report import pairing_note, quick_note, write_comparison_report, write_run_report
from inmaterio.experiments.report_entries import Entry, entries_of, versus
from inmaterio.experiments.report_figures import PARTS_SHOWN, _part_look
from inmaterio.experiments.report_inputs import read_comparison, read_record
from inmaterio.experiments.report_physics import _dot, count_sentences, held_entries
from inmaterio.experiments.report_text import energy_sentence, times, verdict
from inmaterio.experiments.run import run as do_run
from inmaterio.experiments.tables import short

VOID = {"meta", "br", "link", "img", "input", "hr", "col"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects text, attributes, tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data + " "

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def find(self, *cells: str) -> list[list[str]]:
        """Table rows in which each of these stands in some cell."""
        return [row for row in self.rows if all(any(one in cell for cell in row) for one in cells)]


@pytest.fixture(scope="module")
def costs() -> CostTable:
    return load_costs()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("comparison")
    document = write_example(out, costs)
    write_comparison_report(out, costs)
    return out, document


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, costs: CostTable) -> tuple[Path, dict[str, Any]]:
    """A rule and the baseline, not yet reported."""
    out = tmp_path_factory.mktemp("pair")
    return out, write_example(out, costs, two_lines(), seeds=3)


@pytest.fixture(scope="module")
def pair_page(pair: tuple[Path, dict[str, Any]], costs: CostTable, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page about the pair."""
    out = tmp_path_factory.mktemp("reported") / "pair"
    shutil.copytree(pair[0], out)
    return page_of(out, costs)


@pytest.fixture
def changed(pair: tuple[Path, dict[str, Any]], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A copy of the pair with a function applied to its document."""

    def make(change: Callable[[dict[str, Any]], Any]) -> Path:
        out = tmp_path / "changed"
        shutil.copytree(pair[0], out)
        document = copy.deepcopy(pair[1])
        change(document)
        (out / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
        return out

    return make


@pytest.fixture
def small(tmp_path: Path, costs: CostTable) -> Callable[..., Path]:
    """A comparison of these lines."""

    def make(lines: list[Line], seeds: int = 2) -> Path:
        write_example(tmp_path, costs, lines, seeds=seeds)
        return tmp_path

    return make


def page_of(out: Path, costs: CostTable) -> Page:
    return Page(write_comparison_report(out, costs).read_text(encoding="utf-8"))


def two_lines() -> list[Line]:
    """One rule on the imperfect substrate and the digital baseline."""
    lines = example_lines()
    return [next(line for line in lines if line.substrate == "hopfield-imperfect"), lines[-1]]


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


def test_names_are_escaped(small: Callable[..., Path], costs: CostTable) -> None:
    evil = '<script>alert("1")</script> & $x_1$'
    line, baseline = two_lines()
    page = page_of(small([dataclasses.replace(line, name=evil), baseline]), costs)
    assert page.tags["script"] == 0
    assert page.find(evil)
    assert evil in "".join(value for tag, name, value in page.attributes if name == "aria-label")


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["rows"][0].pop("test_error_mean"), "row 1: test_error_mean is missing"),
        (lambda d: d["rows"][1].update(test_error_std="wide"), "row 2: test_error_std is 'wide'; expected a number"),
        (lambda d: d["rows"][0].update(control=1), "row 1: control is 1; expected true or false"),
        (lambda d: d["rows"][0].update(cosine=[1.0]), "row 1: cosine is"),
        (lambda d: d["rows"][0].update(energy_J=3.0), "row 1: energy_J is 3.0"),
        (lambda d: d["rows"][0].update(runs=["gone"]), "run directory gone is missing"),
        (lambda d: d.update(rows=[]), "lacks settings or rows"),
    ],
)
def test_damaged_comparison_is_refused(
    changed: Callable[..., Path], costs: CostTable, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    out = changed(change)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        write_comparison_report(out, costs)
    assert "\n" not in str(caught.value)
    assert not (out / "report.html").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": 3}'])
def test_unreadable_comparison_is_refused(tmp_path: Path, costs: CostTable, content: str) -> None:
    with pytest.raises(InputError, match=re.escape("comparison.json")):
        write_comparison_report(tmp_path, costs)
    (tmp_path / "comparison.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape("comparison.json")) as caught:
        write_comparison_report(tmp_path, costs)
    assert "\n" not in str(caught.value)


def test_damaged_run_is_refused(changed: Callable[..., Path], costs: CostTable) -> None:
    out = changed(lambda document: None)
    folder = next(path for path in out.iterdir() if path.is_dir())
    whole = (folder / "run.nc").read_bytes()
    for damage, message in ((whole[: len(whole) // 2], "is damaged"), (b"not a file", "is damaged")):
        (folder / "run.nc").write_bytes(damage)
        with pytest.raises(InputError, match=message) as caught:
            write_comparison_report(out, costs)
        assert "\n" not in str(caught.value)
    (folder / "run.nc").write_bytes(whole)
    (folder / "config.toml").write_text("seed = 99\n", encoding="utf-8")
    with pytest.raises(InputError, match="another configuration"):
        write_comparison_report(out, costs)
    (folder / "run.nc").unlink()
    with pytest.raises(InputError, match=r"run\.nc is missing"):
        write_comparison_report(out, costs)


def test_record_reads_what_xarray_reads(example: tuple[Path, dict[str, Any]]) -> None:
    xarray = pytest.importorskip("xarray")
    folder = example[0] / example[1]["rows"][0]["runs"][0]
    record = read_record(folder)
    with xarray.open_dataset(folder / "run.nc", engine="h5netcdf") as data:
        np.testing.assert_array_equal(record.events, data["events"].values)
        assert [row[3] for row in record.rows] == [str(event) for event in data["event"].values]
        np.testing.assert_array_equal(record.cosines["layer_2"], data["cosine"].sel(layer="layer_2").values)
        np.testing.assert_array_equal(record.curves["modelled_time_s"], data["modelled_time_s"].values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.21e-6, "3.21 µJ"),
        (999.6e-9, "1.00 µJ"),
        (1.0, "1.00 J"),
        (0.0, "0 J"),
        (12345.0, "12.3 kJ"),
        (-2.5e-3, "-2.50 mJ"),
        (np.nan, "–"),
    ],
)
def test_engineering_prefixes(value: float, text: str) -> None:
    assert engineering(value, "J") == text


def test_tick_labels_drop_zeros() -> None:
    assert [tick_label(value, "J") for value in (1e-6, 2.5e-3, 100.0)] == ["1 µJ", "2.5 mJ", "100 J"]
    assert tick_label(20000.0, "") == "20k"


def test_curves_with_nothing_to_draw_are_empty() -> None:
    nothing = np.full(3, np.nan)
    curve = Curve("a", Look(1), nothing, nothing, nothing, nothing)
    assert curves_svg([curve], name="a", title="t", x_label="x", y_label="y") == ""


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_start_anywhere(logarithmic: bool) -> None:
    # A zero at the start cannot stand on a logarithmic axis; a single point is no reason to fail.
    x = np.array([0.0, 1e-9, 1e-3])
    curves = [Curve("a", Look(1), x, x, x, x), Curve("b", Look(2), x[1:2], x[1:2], x[1:2], x[1:2])]
    svg = curves_svg(
        curves, name="a", title="t", x_label="x", y_label="y", x_unit="J", logarithmic=logarithmic, percent=True, chance=0.9
    )
    assert svg.count("<svg") == 1
    assert "nan" not in svg


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


def test_what_is_left_out_and_what_has_to_be_known_of_the_data(example: tuple[Path, dict[str, Any]]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    assert page.find("in-situ-adjoint", "hopfield-ideal", "lacks capability Adjoint")
    assert page.find("implicit-differentiation", "hopfield-imperfect", "lacks trait symmetric")
    assert "kept rate of delta-rule on hopfield-ideal (2) lies at the edge" in page.text
    assert f"Data: {DATA_NOTES}." in page.text
    assert "What the physics is worth" not in page.text, "none of these has an ablation"
    assert "Digital maps only" not in page.text


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


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(work=[1.0]),
        lambda row: row.update(work={"update": None}),
        lambda row: row["work"].update(update={"passes": 1.0}),
        lambda row: row["work"].update(inference=3.0),
    ],
)
def test_damaged_work_is_refused(changed: Callable[..., Path], costs: CostTable, change: Callable[[dict[str, Any]], Any]) -> None:
    out = changed(lambda document: change(document["rows"][0]))
    with pytest.raises(InputError, match=r"row 1: work.* is .*; expected"):
        write_comparison_report(out, costs)


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


def test_too_few_pairs_have_no_interval(example: tuple[Path, Any]) -> None:
    page = Page((example[0] / "report.html").read_text(encoding="utf-8"))
    cells = [cell for row in page.rows for cell in row if "decides nothing" in cell]
    assert cells
    assert not any(" to " in cell for cell in cells)


def test_two_pairs_draw_no_interval_of_what_the_physics_is_worth(physical: tuple[Path, dict[str, Any]], costs: CostTable) -> None:
    entries = entries_of(read_comparison(physical[0]), costs)
    for runs, known in ((2, False), (3, True)):
        fewer = [dataclasses.replace(entry, runs=entry.runs[:runs]) for entry in entries]
        dots = [_dot(one) for one in held_entries(fewer)]
        assert dots
        assert all((dot.low is not None) is known and (dot.high is not None) is known for dot in dots)
