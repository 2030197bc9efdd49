"""The table of costs: complete, sourced, and refused line by line when it is wrong."""

import csv
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.costs import BOUNDARIES, COLUMNS, EVENTS, STATUSES, Z95, Cost, CostTable, known_event, load_costs
from inmaterio.devices.validation import InputError

GOOD = {
    "id": "my_adc",
    "component": "ADC",
    "quantity": "8 bits, per conversion",
    "event": "adc_conversion_8b",
    "low": "1e-12",
    "typical": "2e-12",
    "high": "3e-12",
    "unit": "J",
    "node": "22nm",
    "boundary": "array+converters",
    "source": "our own chip",
    "year": "2026",
    "status": "read",
    "notes": "",
}


def written(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    """A file of costs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_event_is_priced_by_exactly_one_row() -> None:
    table = load_costs()
    priced = [cost.event for cost in table if cost.event]
    assert sorted(priced) == sorted(EVENTS)
    for event in EVENTS:
        cost = table.for_event(event)
        assert cost is not None
        assert cost is table[cost.id]
    assert table.for_event("adc_conversion_ideal") is None
    assert table.for_event("dac_conversion_ideal") is None


def test_every_row_says_where_it_comes_from() -> None:
    table = load_costs()
    assert len(table) > 140
    for cost in table:
        assert cost.source
        assert cost.status in STATUSES
        assert cost.boundary in BOUNDARIES
        assert cost.component
        assert cost.quantity
        assert 0 < cost.low <= cost.typical <= cost.high < math.inf
        assert cost.marked == (cost.status in ("recalled", "assumed range"))
        assert cost.year is None or 1950 < cost.year <= 2026
        if cost.year is None:  # no source with a year: then the row is an assumption, or says so
            assert cost.marked or "assumed" in cost.notes


def test_energies_are_of_a_plausible_order() -> None:
    # A slip of pJ against J, or of op against access, moves a figure by orders of magnitude: no event that is in joules
    # is cheaper than 100 kT or dearer than a DRAM burst.
    for cost in load_costs():
        if cost.event and cost.unit == "J":
            assert cost.low > 100 * 4.142e-21
            assert cost.high < 1e-9


@pytest.mark.parametrize(
    ("event", "unit"), [("ohmic_joule", "1"), ("amplifier_second", "W"), ("mac_fp32", "J"), ("byte_dram", "J")]
)
def test_units_of_events(event: str, unit: str) -> None:
    cost = load_costs().for_event(event)
    assert cost is not None
    assert cost.unit == unit


@pytest.mark.parametrize("bits", range(4, 13))
def test_adc_rows_follow_the_survey_regression(bits: int) -> None:
    # Andrulis et al. 2024, at 32 nm and 10 MS/s; E in pJ.
    limit = min(213.781 - 2.8719 * math.log(10e6), 128.307 + 3.2205 * bits)
    noise = 6.02 * bits + 1.76
    expected = (
        1e-12 / (2 * 10 ** ((limit - noise) / 10)) * math.exp(26.0496 + 1.88 * math.log(32) - 2.829 * math.log(bits) - 1.4702)
    )
    cost = load_costs().for_event(f"adc_conversion_{bits}b")
    assert cost is not None
    assert cost.typical == pytest.approx(expected, rel=1e-5)
    assert (cost.status, cost.node) == ("computed", "32nm")
    # Values printed for that model elsewhere.
    printed = {4: 0.923e-12, 6: 1.06e-12, 8: 1.71e-12, 10: 3.3e-12}
    assert cost.typical == pytest.approx(printed.get(bits, cost.typical), rel=5e-3)


def test_dac_rows_grow_with_bits_between_linear_and_exponential() -> None:
    rows = [load_costs().for_event(f"dac_conversion_{bits}b") for bits in range(4, 13)]
    typical = np.array([cost.typical for cost in rows if cost is not None])
    growth = typical[1:] / typical[:-1]
    bits = np.arange(4, 12)
    assert len(typical) == 9
    assert (growth > (bits + 1) / bits).all()
    assert (growth < 2).all()
    assert typical[4] == 0.291e-12
    assert [cost.status for cost in rows if cost is not None] == ["assumed range"] * 4 + ["read"] + ["assumed range"] * 4


def test_arithmetic_and_memory_rows() -> None:
    table = load_costs()
    mac, add, multiply = table["mac_fp32_7nm"], table["alu_fp32_7nm"], table["fp32_multiply_7nm"]
    assert mac.typical == pytest.approx(add.typical + multiply.typical)
    assert mac.typical == pytest.approx(1.69e-12)
    assert table["byte_sram_32kb_7nm"].typical == pytest.approx(table["sram_32kb_7nm"].typical / 8)
    assert table["byte_dram"].typical == pytest.approx(table["dram_hbm2"].typical / 8)
    assert table["landauer_300k"].typical == pytest.approx(1.380649e-23 * 300 * math.log(2), rel=1e-3)
    assert table["thermal_300k"].typical == pytest.approx(1.380649e-23 * 300, rel=1e-3)


def test_cost_at_its_three_points() -> None:
    cost = load_costs()["rram_pulse"]
    assert cost.at([-Z95, 0.0, Z95]) == pytest.approx([1e-13, 6e-13, 5e-11], rel=1e-12)
    assert cost.at(-2 * Z95) == pytest.approx(1e-13**2 / 6e-13)
    assert cost.at(0.5 * Z95) == pytest.approx(math.sqrt(6e-13 * 5e-11))


def test_writing_a_device_covers_the_pulses_of_phase_change_memory() -> None:
    table = load_costs()
    write = table.for_event("device_write")
    assert write is not None
    assert (write.status, write.marked) == ("assumed range", True)
    for pulse in ("pcm_reset", "pcm_set", "pcm_write_bit"):
        assert write.high >= table[pulse].high
    assert "PCRAM" in write.source
    assert "PCM" in write.notes


def test_int8_multiply_accumulate_sums_in_32_bits() -> None:
    table = load_costs()
    mac = table["mac_int8_7nm"]
    for point in ("low", "typical", "high"):
        parts = [getattr(table[name], point) for name in ("int8_multiply_7nm", "int32_add_7nm")]
        assert getattr(mac, point) == pytest.approx(sum(parts))
    assert table.for_event("mac_int8") is mac
    assert table.for_event("alu_int32") is table["int32_add_7nm"]


def test_a_cost_without_a_range_is_a_constant() -> None:
    cost = load_costs()["landauer_300k"]
    np.testing.assert_array_equal(cost.at(np.linspace(-3, 3, 7)), np.full(7, 2.871e-21))


def test_table_survives_a_trip_to_another_process() -> None:
    table = load_costs()
    back = pickle.loads(pickle.dumps(table))
    assert back == table
    assert back.for_event("mac_fp32") == table.for_event("mac_fp32")


def test_whole_table_from_a_file(tmp_path: Path) -> None:
    table = load_costs(written(tmp_path / "mine.csv", GOOD))
    (cost,) = table
    assert cost == Cost(
        "my_adc",
        "ADC",
        "8 bits, per conversion",
        "adc_conversion_8b",
        1e-12,
        2e-12,
        3e-12,
        "J",
        "22nm",
        "array+converters",
        "our own chip",
        2026,
        "read",
    )
    assert table.for_event("mac_fp32") is None


def test_spreadsheet_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [
        ",".join(COLUMNS),
        "",
        ",".join(f" {GOOD[name]} " if name != "quantity" else '"8 bits, per conversion"' for name in COLUMNS),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n,,,,,,,,,,,,,\r\n")
    assert load_costs(path)["my_adc"].typical == 2e-12


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    table = load_costs(written(tmp_path / "mine.csv", GOOD, columns=tuple(reversed(COLUMNS))))
    assert table["my_adc"].node == "22nm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": "-1e-12"}, "line 2: low is '-1e-12'; expected a number > 0"),
        ({"low": "0"}, "line 2: low is '0'; expected a number > 0"),
        ({"typical": "two"}, "line 2: typical is 'two'; expected a number > 0"),
        ({"high": ""}, "line 2: high is ''; expected a number > 0"),
        ({"high": "inf"}, "line 2: high is 'inf'; expected a number > 0"),
        ({"typical": "nan"}, "line 2: typical is 'nan'; expected a number > 0"),
        ({"low": "2.5e-12"}, "line 2: low 2.5e-12 is above typical 2e-12; expected low <= typical <= high"),
        ({"typical": "4e-12"}, "line 2: typical 4e-12 is above high 3e-12; expected low <= typical <= high"),
        ({"boundary": "board"}, "line 2: unknown boundary 'board'"),
        ({"boundary": "arrays"}, "nearest: array"),
        ({"status": "guessed"}, "line 2: unknown status 'guessed'"),
        ({"event": "adc_conversion_8"}, "line 2: unknown event 'adc_conversion_8'; nearest: adc_conversion_8b"),
        ({"source": " "}, "line 2: source of 'my_adc' is empty; expected text"),
        ({"unit": "pJ"}, "line 2: unit of 'my_adc' is 'pJ'; expected 'J' for event 'adc_conversion_8b'"),
        ({"event": "", "unit": ""}, "line 2: unit of 'my_adc' is empty; expected text"),
        ({"year": "last"}, "line 2: year is 'last'; expected four digits or nothing"),
        ({"id": ""}, "line 2: id is empty; expected a name"),
    ],
)
def test_bad_values_are_named_with_file_and_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = written(tmp_path / "bad.csv", GOOD | change)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_costs(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_rows_that_collide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: id 'my_adc' stands twice; expected each once"):
        load_costs(written(tmp_path / "twice.csv", GOOD, GOOD))
    other = GOOD | {"id": "other_adc"}
    for load in (load_costs, load_costs().replaced):
        with pytest.raises(
            InputError, match=r"line 3: event 'adc_conversion_8b' is priced by 'my_adc' and 'other_adc'; expected one row"
        ):
            load(written(tmp_path / "event.csv", GOOD, other))
    cost = load_costs()["adc_8b"]
    with pytest.raises(InputError, match="is priced by 'adc_8b' and 'again'"):
        CostTable({"adc_8b": cost, "again": Cost(**{name: getattr(cost, name) for name in COLUMNS} | {"id": "again"})})
    with pytest.raises(InputError, match="cost 'adc_8b' stands under the name 'adc'"):
        CostTable({"adc": cost})


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_column(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "bad.csv", GOOD, columns=tuple(name for name in COLUMNS if name != column))
    with pytest.raises(InputError, match=f"line 1: header lacks column '{column}'; expected id,component"):
        load_costs(path)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    with pytest.raises(
        InputError, match=r"cannot read costs from .*bad.csv: No such file or directory; expected a CSV file in UTF-8"
    ):
        load_costs(path)
    with pytest.raises(InputError, match="cannot read costs from .*: Is a directory"):
        load_costs(tmp_path)
    path.write_text("")
    with pytest.raises(InputError, match="holds nothing; expected a header id,component"):
        load_costs(path)
    path.write_bytes(b"id,\xff\n")
    with pytest.raises(InputError, match="cannot read costs from .*codec"):
        load_costs(path)
    path.write_text(",".join(COLUMNS) + '\na,"open')
    with pytest.raises(InputError, match="cannot read costs from .*: unexpected end of data"):
        load_costs(path)
    path.write_text(",".join(COLUMNS) + "\nmy_adc,ADC\n")
    with pytest.raises(InputError, match="line 2: 2 cells; expected 14, one for each column"):
        load_costs(path)
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(InputError, match="holds no rows; expected a header id,component.* and rows below it"):
        load_costs(path)
    path.write_text(",".join((*COLUMNS, "colour")) + "\na\n")
    with pytest.raises(InputError, match="line 1: header has column 'colour'"):
        load_costs(path)
    path.write_text(",".join((*COLUMNS, "id")) + "\na\n")
    with pytest.raises(InputError, match="line 1: header names a column twice"):
        load_costs(path)


def test_replacing_by_id_leaves_the_other_rows(tmp_path: Path) -> None:
    shipped = load_costs()
    few = (
        dict.fromkeys(COLUMNS, "")
        | {name: GOOD[name] for name in ("low", "typical", "high", "source", "status")}
        | {"id": "adc_8b"}
    )
    table = shipped.replaced(written(tmp_path / "mine.csv", few))
    cost = table.for_event("adc_conversion_8b")
    assert cost is not None
    assert (cost.id, cost.low, cost.typical, cost.high, cost.source) == ("adc_8b", 1e-12, 2e-12, 3e-12, "our own chip")
    assert (cost.unit, cost.boundary, cost.node) == ("J", "array+converters", "32nm")
    assert {name: row for name, row in table.rows.items() if name != "adc_8b"} == {
        name: row for name, row in shipped.rows.items() if name != "adc_8b"
    }
    assert shipped.for_event("adc_conversion_8b") == load_costs()["adc_8b"]  # the old table stands


def test_replacing_by_event_keeps_the_old_row_for_comparison(tmp_path: Path) -> None:
    table = load_costs().replaced(written(tmp_path / "mine.csv", GOOD))
    cost = table.for_event("adc_conversion_8b")
    assert cost is not None
    assert cost.id == "my_adc"
    assert table["adc_8b"].event == ""
    assert table["adc_8b"].typical == load_costs()["adc_8b"].typical
    assert len(table) == len(load_costs()) + 1


def test_a_figure_for_comparison_can_take_over_an_event(tmp_path: Path) -> None:
    row = GOOD | {"id": "rram_set_50ns", "event": "device_write", "boundary": "device"}
    table = load_costs().replaced(written(tmp_path / "mine.csv", row))
    cost = table.for_event("device_write")
    assert cost is not None
    assert cost.id == "rram_set_50ns"
    assert table["rram_pulse"].event == ""


def test_pricing_what_the_shipped_table_leaves_out(tmp_path: Path) -> None:
    row = GOOD | {"id": "adc_14b", "event": "adc_conversion_14b"}
    cost = load_costs().replaced(written(tmp_path / "mine.csv", row)).for_event("adc_conversion_14b")
    assert cost is not None
    assert cost.id == "adc_14b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "adc_8bit", "event": ""}, "line 2: unknown id 'adc_8bit'; nearest: adc_8b"),
        (
            {"id": "adc_8b", "event": "mac_fp32"},
            "line 2: 'adc_8b' prices event 'adc_conversion_8b', not 'mac_fp32'; expected that or a new id",
        ),
        ({"event": "adc_conversion"}, "line 2: unknown event 'adc_conversion'"),
        ({"id": "amplifier_static", "event": ""}, "line 2: unit of 'amplifier_static' is 'J'; expected 'W'"),
        ({"id": "adc_8b", "source": ""}, "line 2: source of 'adc_8b' is empty"),
        ({"id": "adc_8b", "status": ""}, "line 2: unknown status ''"),
    ],
)
def test_replacements_that_fit_nothing(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_costs().replaced(written(tmp_path / "bad.csv", GOOD | change))


def test_unknown_cost_by_id() -> None:
    with pytest.raises(InputError, match="unknown cost 'adc8b'; nearest: adc_8b"):
        load_costs()["adc8b"]


def test_vocabulary() -> None:
    assert all(map(known_event, EVENTS))
    assert all(map(known_event, ("adc_conversion_ideal", "dac_conversion_ideal", "adc_conversion_1b", "dac_conversion_16b")))
    assert not any(map(known_event, ("", "adc_conversion", "adc_conversion_0b", "adc_conversion_8b ", "mac", "conversion_8b")))
