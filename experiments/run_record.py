"""One run as it stands in its directory, read for a report and checked before anything is drawn."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RunConfig, TrainingConfig, load_config
from inmaterio.experiments.other_predictors import errors_of
from inmaterio.experiments.run_directory import CURVES, fingerprint
from inmaterio.experiments.summary import evaluated_rows

Floats = NDArray[np.float64]


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
            chance_error=_finite(float(attributes["chance_error"])) if "chance_error" in attributes else None,
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
