"""What a report is made from: ``comparison.json`` and run directories, checked before anything is drawn."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RunConfig, TrainingConfig, load_config
from inmaterio.experiments.controls import ablation_of
from inmaterio.experiments.other_predictors import errors_of
from inmaterio.experiments.run_directory import CURVES, fingerprint
from inmaterio.experiments.summary import evaluated_rows

Floats = NDArray[np.float64]

WORK = ("passes", "conversions", "macs")
"""What is counted of an update and of an inference."""


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run as it stands in its directory.

    Attributes
    ----------
    folder : Path
    shown : str
        The folder as the page names it: relative to the page where it lies beside it.
    config : RunConfig
    task, metric : str
        ``"classification"`` and ``"error"``, or ``"regression"`` and ``"nrmse"``.
    loss : str
        Name of the loss the rule descends.
    test_error : float
        Error on the rows named by `evaluated_on`, dimensionless; NaN when the run was not evaluated.
    evaluated_on : str
        ``"test"`` or ``"validation"``.
    chance_error : float or None
        Error of guessing.
    inference_samples : float
        Samples behind the events of the phase `infer`; 0 when none were inferred.
    curves : mapping of str to ndarray, each (epochs,)
        ``epoch``, ``train_loss``, ``train_error``, ``validation_error``, ``residual_max``, ``unsettled_fraction``,
        ``device_passes``, ``modelled_time_s`` (seconds), ``updates``.
    rows : tuple of (phase, role, component, event)
    events : ndarray, shape (epochs, rows)
        Amounts so far; the last epoch's include what came after it.
    probe_epochs : ndarray, shape (probes,)
    cosines : mapping of str to ndarray, each (probes,)
        By layer.
    shapes : mapping of str to tuple of int
        Of the parameters, as far as their values are in the directory.
    evaluated_rows : int or None
        Rows behind `test_error`; None where the data are not at hand to count them.
    data_notes : str
        What a reader of results has to know of the data; empty where there is nothing.
    trained_digital, trained_physical : int, optional
        Trained parameters; None where the run does not say.
    other_errors : mapping of str to float
        Error on the same rows of each other way to predict that the rule has.
    inference_seconds : float
        Modelled time of the phase `infer`, seconds.
    """

    folder: Path
    shown: str
    config: RunConfig
    task: str
    metric: str
    loss: str
    test_error: float
    evaluated_on: str
    chance_error: float | None
    inference_samples: float
    curves: Mapping[str, Floats]
    rows: tuple[tuple[str, str, str, str], ...]
    events: Floats
    probe_epochs: Floats
    cosines: Mapping[str, Floats]
    shapes: Mapping[str, tuple[int, ...]]
    evaluated_rows: int | None
    data_notes: str = ""
    trained_digital: int | None = None
    trained_physical: int | None = None
    other_errors: Mapping[str, float] = field(default_factory=dict)
    inference_seconds: float = 0.0

    @property
    def place(self) -> tuple[int, int]:
        """What a paired difference holds fixed apart from the chip: split, seed."""
        return self.config.data.split_seed, self.config.seed


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


def read_record(folder: Path, beside: Path | None = None) -> RunRecord:
    """A run directory.

    Parameters
    ----------
    folder : Path
    beside : Path, optional
        Folder of the page, against which the run is named.

    Raises
    ------
    InputError
        When the directory is missing, damaged or lacks a variable.
    """
    folder = Path(folder)
    for name in ("config.toml", "run.nc"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not a run directory or is damaged: {name} is missing")
    config = load_config(folder / "config.toml")
    try:
        data, attributes, shapes = _read_arrays(folder / "run.nc")
        curves = {name: data[name].astype(np.float64) for name in ("epoch", *CURVES)}
        rows = tuple(zip(*(_texts(data[name]) for name in ("phase", "role", "component", "event")), strict=True))
        layers = _texts(data["layer"])
        cosine = data["cosine"].astype(np.float64).reshape(len(data["probe_epoch"]), len(layers))
        record = RunRecord(
            folder=folder,
            shown=_shown(folder, beside),
            config=config,
            task=str(attributes["task"]),
            metric=str(attributes["metric"]),
            loss=str(attributes.get("loss", "-")),
            test_error=float(attributes.get(f"{config.training.evaluate_on}_error", math.nan)),
            evaluated_on=config.training.evaluate_on,
            chance_error=_number(float(attributes["chance_error"]), "chance_error") if "chance_error" in attributes else None,
            inference_samples=float(attributes.get("inference_samples", 0.0)),
            curves=curves,
            rows=rows,
            events=data["events"].astype(np.float64),
            probe_epochs=data["probe_epoch"].astype(np.float64),
            cosines={layer: cosine[:, i] for i, layer in enumerate(layers)},
            shapes=shapes,
            evaluated_rows=_evaluated_rows(config.data, config.training.evaluate_on),
            data_notes=str(attributes.get("data_notes", "")),
            trained_digital=int(attributes["trained_digital"]) if "trained_digital" in attributes else None,
            trained_physical=int(attributes["trained_physical"]) if "trained_physical" in attributes else None,
            other_errors=errors_of(attributes, config.training.evaluate_on),
            inference_seconds=_inference_seconds(data),
        )
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        reason = str(error).strip("'\"").splitlines()
        raise InputError(f"{folder / 'run.nc'} is damaged: {reason[0] if reason else type(error).__name__}") from None
    if attributes.get("configuration_sha256") != fingerprint(config):
        raise InputError(f"{folder} belongs to another configuration: run.nc was not made from this config.toml")
    epochs = len(curves["epoch"])
    if epochs == 0 or record.events.shape != (epochs, len(rows)) or any(curve.shape != (epochs,) for curve in curves.values()):
        expected = f"{epochs} epochs x {len(rows)} rows"
        raise InputError(f"{folder / 'run.nc'} is damaged: events have shape {record.events.shape}; expected {expected}")
    return record


def _inference_seconds(data: Mapping[str, NDArray[Any]]) -> float:
    """Modelled time of inference that a run tallied by its end."""
    names = zip(_texts(data["tally_phase"]), _texts(data["tally"]), data["tallies"][-1], strict=True)
    return float(sum(amount for phase, tally, amount in names if tally == "second" and phase.split("/")[0] == "infer"))


def _read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, tuple[int, ...]]]:
    """Variables and attributes of a run, and shapes of its parameters: ten times faster than an `xarray.Dataset`."""
    import h5py

    asked, kept = "requested_", ("requested_", "read_back_")
    with h5py.File(path, "r") as file:
        data = {name: np.asarray(item[()]) for name, item in file.items() if not name.startswith(kept)}
        shapes = {name.removeprefix(asked): tuple(item.shape) for name, item in file.items() if name.startswith(asked)}
        attributes = {
            name: value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
            for name, value in file.attrs.items()
        }
    return data, attributes, shapes


@functools.lru_cache(maxsize=64)
def _evaluated_rows(data: DataConfig, evaluate_on: str) -> int | None:
    return evaluated_rows(RunConfig(data=data, training=TrainingConfig(evaluate_on=evaluate_on)))


def _texts(values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values)


def _shown(folder: Path, beside: Path | None) -> str:
    if beside is not None:
        try:
            return folder.resolve().relative_to(beside.resolve()).as_posix()
        except ValueError:
            pass
    return folder.as_posix()


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
