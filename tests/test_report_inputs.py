"""What a report is made from is read whole, or refused with the place that is damaged."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.costs import CostTable
from inmaterio.devices.validation import InputError
from inmaterio.experiments.report import write_comparison_report
from inmaterio.experiments.run_record import read_record

pytest_plugins = ["report_fixtures"]


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
