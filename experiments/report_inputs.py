"""What a report of a comparison is made from: ``comparison.json`` and the runs it names, checked before anything is drawn."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inmaterio.devices.validation import InputError
from inmaterio.experiments.controls import ablation_of
from inmaterio.experiments.run_record import RunRecord, read_record

WORK = ("passes", "conversions", "macs")
"""What is counted of an update and of an inference."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a comparison. Attributes are those of ``comparison.json``; None means no figure.

    Attributes
    ----------
    energy_J : tuple of three floats, or None
        P10, P50, P90 in joules, of what `energy_scope` says.
    extra : mapping
        Everything else that stood in the line.
    trained_digital, trained_physical : int, optional
        Trained parameters.
    work : mapping of str to mapping, or None
        Of ``"update"`` and ``"inference"``: ``passes``, ``conversions`` and ``macs``, each of one; None where it has none.
    """

    data: str
    split: str
    substrate: str
    rule: str
    control: bool
    write_mode: str
    seeds: int
    chips: int
    loss: str
    metric: str
    test_error_mean: float
    test_error_std: float | None
    updates: float | None
    device_passes: float | None
    modelled_time_s: float | None
    cosine: Mapping[str, float | None]
    energy_scope: str
    energy_J: tuple[float, float, float] | None
    rate_factor: float | None
    residual_max: float | None
    unsettled_fraction: float | None
    chance_error: float | None
    runs: tuple[str, ...]
    extra: Mapping[str, Any]
    trained_digital: int | None = None
    trained_physical: int | None = None
    work: Mapping[str, Mapping[str, float] | None] | None = None
    symmetry: float | None = None

    @property
    def ablation(self) -> tuple[str, str] | None:
        """The rule this line is a control of, and what was done to its physics; None for any other line."""
        return ablation_of(self.rule) if self.control else None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A whole comparison: settings, lines, and the runs of each line in the same order."""

    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    runs: tuple[tuple[RunRecord, ...], ...]
    tuning: tuple[Mapping[str, Any], ...]


def find_run(text: str, out_dir: Path) -> Path:
    """The run directory a comparison names: beside the comparison first (it may have been moved whole), then as written."""
    written = Path(text)
    for candidate in (out_dir / written, out_dir / written.name, written):
        if candidate.is_dir():
            return candidate
    raise InputError(f"run directory {text} is missing; expected it in {out_dir} or as written")


def read_comparison(out_dir: Path) -> Comparison:
    """``comparison.json`` of a folder and the runs it names.

    Raises
    ------
    InputError
        With the file, the line and the key that is missing or of the wrong type, or as `read_record`.
    """
    out_dir = Path(out_dir)
    path = out_dir / "comparison.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected the file that compare writes") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a {type(document).__name__}; expected an object with settings and rows")
    settings, lines, tuning = document.get("settings"), document.get("rows"), document.get("tuning", [])
    if not isinstance(settings, dict) or not isinstance(lines, list) or not lines:
        raise InputError(f"{path} lacks settings or rows; expected an object and a list of at least one line")
    if not isinstance(tuning, list):
        raise InputError(f"{path}: tuning is {tuning!r}; expected a list")
    rows = tuple(_read_row(line, f"{path}: row {i + 1}") for i, line in enumerate(lines))
    cache: dict[Path, RunRecord] = {}
    runs = []
    for row in rows:
        folders = [find_run(text, out_dir) for text in row.runs]
        for folder in folders:
            if folder not in cache:
                cache[folder] = read_record(folder, out_dir)
        runs.append(tuple(cache[folder] for folder in folders))
    return Comparison(settings, rows, tuple(runs), tuple(line for line in tuning if isinstance(line, dict)))


def _read_row(line: Any, where: str) -> Row:
    if not isinstance(line, dict):
        raise InputError(f"{where} is {line!r}; expected an object")
    known = set()

    def text(key: str, missing: str | None = None) -> str:
        known.add(key)
        value = line.get(key, missing)
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InputError(f"{where}: {key} is {value!r}; expected text")
        return str(value)

    def count(key: str) -> int:
        known.add(key)
        value = line.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return len(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{where}: {key} is {value!r}; expected a whole number >= 0")
        return value

    def number(key: str) -> float | None:
        known.add(key)
        return _number(line.get(key), f"{where}: {key}")

    control = line.get("control")
    if not isinstance(control, bool):
        raise InputError(f"{where}: control is {control!r}; expected true or false")
    mean = number("test_error_mean")
    if mean is None:
        raise InputError(f"{where}: test_error_mean is missing; expected a number")
    cosine = line.get("cosine") or {}
    if not isinstance(cosine, dict):
        raise InputError(f"{where}: cosine is {cosine!r}; expected an object of layer to number")
    energy = line.get("energy_J") or {}
    if not isinstance(energy, dict):
        raise InputError(f"{where}: energy_J is {energy!r}; expected an object with scope, P10, P50 and P90")
    points = [_number(energy.get(key), f"{where}: energy_J.{key}") for key in ("P10", "P50", "P90")]
    low, middle, high = points
    runs = line.get("runs") or ([line["run"]] if line.get("run") else [])
    if not isinstance(runs, list) or not runs or not all(isinstance(one, str) for one in runs):
        raise InputError(f"{where}: runs is {runs!r}; expected a list of run directories")
    known |= {"control", "cosine", "energy_J", "runs", "run", "work"}
    row = Row(
        data=text("data"),
        split=text("split", "test"),
        substrate=text("substrate"),
        rule=text("rule"),
        control=control,
        write_mode=text("write_mode", "-"),
        seeds=count("seeds"),
        chips=count("chips"),
        loss=text("loss", "-"),
        metric=text("metric"),
        test_error_mean=mean,
        test_error_std=number("test_error_std"),
        updates=number("updates"),
        device_passes=number("device_passes"),
        modelled_time_s=number("modelled_time_s"),
        cosine={str(layer): _number(value, f"{where}: cosine.{layer}") for layer, value in cosine.items()},
        energy_scope=str(energy.get("scope", "train_total")),
        energy_J=None if low is None or middle is None or high is None else (low, middle, high),
        rate_factor=number("rate_factor"),
        residual_max=number("residual_max"),
        unsettled_fraction=number("unsettled_fraction"),
        symmetry=number("symmetry"),
        chance_error=number("chance_error"),
        runs=tuple(runs),
        trained_digital=count("trained_digital") if line.get("trained_digital") is not None else None,
        trained_physical=count("trained_physical") if line.get("trained_physical") is not None else None,
        work=_read_work(line.get("work"), f"{where}: work"),
        extra={key: value for key, value in line.items() if key not in known},
    )
    return row


def _read_work(value: Any, where: str) -> Mapping[str, Mapping[str, float] | None] | None:
    """What an update and an inference take; None where the line does not say."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() >= {"update", "inference"}:
        raise InputError(f"{where} is {value!r}; expected an object of update and inference")
    found: dict[str, Mapping[str, float] | None] = {}
    for part in ("update", "inference"):
        counts = value[part]
        if counts is not None and not isinstance(counts, dict):
            raise InputError(f"{where}.{part} is {counts!r}; expected passes, conversions and macs, or null")
        numbers = {} if counts is None else {name: _number(counts.get(name), f"{where}.{part}.{name}") for name in WORK}
        if None in numbers.values():
            raise InputError(f"{where}.{part} is {counts!r}; expected passes, conversions and macs, or null")
        found[part] = {name: one for name, one in numbers.items() if one is not None} if numbers else None
    return found


def _number(value: Any, where: str) -> float | None:
    """A number, or None for null and NaN."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where} is {value!r}; expected a number or null")
    return float(value) if math.isfinite(value) else None
