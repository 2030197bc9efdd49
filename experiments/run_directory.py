"""The directory of a run: what is in it, and how it comes to be there whole or not at all.

``OUT/<hash>/`` holds ``config.toml`` (complete: it can be run again), ``run.nc`` (see `build_dataset`), ``state.npz`` (the
trained chip and rule, for `load_run`), ``log.txt``, and a copy of each file of the user that ``config.toml`` names, such as
``my_rule.py``, so that it can be run again from anywhere. ``run.nc`` keeps the digests of ``state.npz`` and of these copies.
While a run is under way its files stand in ``OUT/.<hash>.partial`` with a ``checkpoint.npz``; at the end that folder is
renamed.
"""

import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import RunConfig, load_config, to_toml, with_names
from inmaterio.experiments.own_files import own_file, read_own
from inmaterio.experiments.run_hash import data_folder, file_digest, with_data_folder
from inmaterio.simulators.capabilities import Array, Parameter

CURVES: Mapping[str, tuple[str, str]] = {
    "train_loss": ("mean loss over the batches of the epoch, before each update", "1"),
    "train_error": ("error on the training rows as they came by", "1"),
    "validation_error": ("error on the validation rows", "1"),
    "disturbed_error": ("the same right after the chip was changed; not a number where it was not", "1"),
    "residual_max": ("largest settling residual", "units of activity"),
    "unsettled_fraction": ("share of samples whose free phase did not settle", "1"),
    "symmetry": ("|S| / (|S| + |A|) of the Jacobian, mean over the updates of the epoch; not a number where none is taken", "1"),
    "updates": ("updates so far", "1"),
    "device_passes": ("device passes in training so far", "1"),
    "modelled_time_s": ("modelled time in training so far; not a number where none is modelled", "s"),
}
"""What is kept per epoch: meaning and unit."""

Records = Mapping[str, list[list[str | float]]]
"""A ledger as `Ledger.to_records` gives it."""


@final
class HeldByAnotherProcess(InputError):
    """A run is being done by another process: nothing is wrong with it."""


def partial_folder(out_root: Path, name: str) -> Path:
    """Where a run stands while it is under way."""
    return out_root / f".{name}.partial"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it when the process ends in any way.

    Raises
    ------
    HeldByAnotherProcess
        When another process holds it, or has just renamed it.
    """
    if sys.platform == "win32":  # no such lock there: two processes on one run would both do the same work
        yield
        return
    import fcntl

    held = HeldByAnotherProcess(f"{folder} is being run by another process; wait for it or choose another --out")
    try:
        file = (folder / ".lock").open("w")
    except FileNotFoundError:
        raise held from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise held from None
        except OSError as error:
            raise InputError(f"cannot lock {folder}: {error.strerror}; choose an --out on another disk") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether another process holds a folder now; nothing is made or changed."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is nothing to hold, or the run itself will say what is wrong
        return False
    return False


def build_dataset(
    history: Sequence[Mapping[str, float]],
    ledgers: Sequence[Records],
    probes: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Parameter],
    requested: Mapping[str, Array],
    read_back: Mapping[str, Array],
    scalars: Mapping[str, float | int | str],
) -> Any:
    """An `xarray.Dataset` of a run.

    Dimensions: ``epoch`` (1 is after the first), ``row`` of ``events`` with coordinates phase, role, component, event,
    ``tally_row`` of ``tallies`` with phase, role, tally, ``probe`` (coordinate ``probe_epoch``) and ``layer`` of
    ``cosine``, and ``node_k`` (nodes of layer k, 0 the input) of ``requested_NAME`` and ``read_back_NAME``. Counts are
    cumulative; the last epoch's include what came after it: deployment, evaluation and inference.

    Parameters
    ----------
    history : sequence of mapping
        One mapping of `CURVES` per epoch.
    ledgers : sequence of records
        The ledger after each epoch.
    probes : sequence of mapping
        ``{"epoch": int, "cosine": {layer: float}}``.
    parameters, requested, read_back : mapping
        What each parameter is; values asked for and values measured at the end.
    scalars : mapping
        Become attributes of the dataset.
    """
    import xarray

    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {"epoch": np.arange(1, len(history) + 1)}
    for name, (meaning, unit) in CURVES.items():
        values = np.array([epoch[name] for epoch in history], dtype=np.float64)
        variables[name] = ("epoch", values, {"long_name": meaning, "units": unit})
    for kind, dimension, names in (
        ("events", "row", ("phase", "role", "component", "event")),
        ("tallies", "tally_row", ("tally_phase", "tally_role", "tally")),
    ):
        rows = sorted({tuple(map(str, record[:-1])) for ledger in ledgers for record in ledger[kind]})
        place = {row: i for i, row in enumerate(rows)}
        counts = np.zeros((len(ledgers), len(rows)))
        for i, ledger in enumerate(ledgers):
            for record in ledger[kind]:
                counts[i, place[tuple(map(str, record[:-1]))]] = float(record[-1])
        variables[kind] = (("epoch", dimension), counts, {"long_name": f"{kind} so far", "units": f"of the {names[-1]}"})
        for i, name in enumerate(names):
            coordinates[name] = (dimension, np.array([row[i] for row in rows], dtype=str))
    layers = sorted({layer for probe in probes for layer in probe["cosine"]}, key=lambda layer: (len(layer), layer))
    cosine = np.array([[_nan(probe["cosine"].get(layer)) for layer in layers] for probe in probes], dtype=np.float64)
    coordinates["layer"] = np.array(layers, dtype=str)
    coordinates["probe_epoch"] = ("probe", np.array([probe["epoch"] for probe in probes], dtype=np.int64))
    meaning = "cosine of the estimated to the exact gradient of the loss on a fixed batch"
    variables["cosine"] = (("probe", "layer"), cosine.reshape(len(probes), len(layers)), {"long_name": meaning, "units": "1"})
    sizes: dict[str, int] = {}
    for kind, meaning, held in (
        ("requested", "value asked for", requested),
        ("read_back", "value measured at the end", read_back),
    ):
        for name, array in held.items():
            key = name.replace("/", ".")
            dimensions = _dimensions(key, array.shape, parameters[name].layer, sizes)
            if np.iscomplexobj(array):
                array, dimensions = np.stack([array.real, array.imag], axis=-1), (*dimensions, "real_and_imaginary")
            about = {"long_name": f"{name}: {meaning}", "units": parameters[name].unit, "parameter": name}
            variables[f"{kind}_{key}"] = (dimensions, array, about)
    return xarray.Dataset(variables, coordinates, dict(scalars))


def _dimensions(key: str, shape: tuple[int, ...], layer: int, sizes: dict[str, int]) -> tuple[str, ...]:
    """Nodes of a layer and of the one below it; dimensions of the parameter's own where sizes do not fit that."""
    nodes = (f"node_{layer}", f"node_{layer - 1}")[: len(shape)]
    if len(shape) <= 2 and all(sizes.get(name, size) == size for name, size in zip(nodes, shape, strict=True)):
        sizes.update(zip(nodes, shape, strict=True))
        return nodes
    return tuple(f"{key}_axis_{i}" for i in range(len(shape)))


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def keep_own_files(config: RunConfig, folder: Path) -> RunConfig:
    """Copy the files of the user that a configuration names into a folder.

    Returns
    -------
    RunConfig
        Naming the copies, relative to the folder, and a folder of data by its whole path.

    Raises
    ------
    InputError
        When a file cannot be read.
    """
    kept: dict[str, bytes] = {}

    def copy(name: str) -> str:
        place = own_file(name)
        if place is None:
            return name
        content, target = read_own(place[0]), place[0].name
        if kept.setdefault(target, content) != content:  # another file of this name
            target = f"{place[0].stem}-{hashlib.sha256(content).hexdigest()[:8]}.py"
        kept[target] = content
        (folder / target).write_bytes(content)
        return f"{target}:{place[1]}"

    named, data = with_names(config, copy), data_folder(config)
    return named if data is None else with_data_folder(named, str(data))


def digests(folder: Path) -> str:
    """SHA-256 of the files of a run that ``run.nc`` vouches for, as JSON by name."""
    return json.dumps({file.name: file_digest(file) for file in sorted([folder / "state.npz", *folder.glob("*.py")])})


def check_files(folder: Path, scalars: Mapping[str, Any]) -> None:
    """Make sure that the files beside ``run.nc`` are those that were written with it.

    Raises
    ------
    InputError
        When one is missing or another.
    """
    for name, digest in json.loads(str(scalars.get("files_sha256", "{}"))).items():
        file = Path(folder) / name
        if not file.is_file():
            raise InputError(f"{folder} is damaged: {name} is missing; move it away to run it again")
        if file_digest(file) != digest:
            raise InputError(
                f"{folder} is damaged: {name} is not as it was written (its SHA-256 differs); move it away to run it again"
            )


def fingerprint(config: RunConfig) -> str:
    """SHA-256 of a configuration as it stands in ``config.toml``."""
    return hashlib.sha256(to_toml(config).encode()).hexdigest()


def write_dataset(dataset: Any, folder: Path) -> None:
    """Write ``run.nc`` into a partial folder."""
    dataset.to_netcdf(folder / "run.nc", engine="h5netcdf")


def read_run(folder: Path) -> tuple[RunConfig, Any]:
    """Configuration and dataset of a finished run.

    Raises
    ------
    InputError
        When the folder or one of its files is missing or damaged, or the files are not of one run.
    """
    config, _ = read_scalars(folder)
    file = Path(folder) / "run.nc"
    try:
        return config, _dataset(file, file.stat().st_mtime_ns, file.stat().st_size).copy()
    except Exception as error:  # the HDF5 libraries raise many kinds for a damaged file
        raise InputError(f"{file} is damaged: {_first_line(error)}") from None


@functools.lru_cache(maxsize=512)
def _dataset(file: Path, modified_ns: int, size: int) -> Any:
    """The dataset in a file, read again when its time or size changes: opening one takes a tenth of a second."""
    import xarray

    with xarray.open_dataset(file, engine="h5netcdf") as dataset:
        return dataset.load()


def read_scalars(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration of a finished run, and the attributes of its dataset: what takes little time to read.

    Raises
    ------
    InputError
        As `read_run`, as far as it can be seen without reading the arrays.
    """
    import h5py

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a run directory: no such folder")
    for name in ("config.toml", "run.nc"):
        if not (folder / name).is_file():
            if (folder / "comparison.json").is_file():
                raise InputError(f"{folder} is the folder of a comparison; expected one of the run directories in it")
            raise InputError(f"{folder} is not a run directory or is damaged: {name} is missing")
    config = load_config(folder / "config.toml")
    try:
        with h5py.File(folder / "run.nc", "r") as file:
            found = {name: np.asarray(value).reshape(-1)[0] for name, value in file.attrs.items() if name != "_NCProperties"}
    except Exception as error:  # as above
        raise InputError(f"{folder / 'run.nc'} is damaged: {_first_line(error)}") from None
    if found.get("configuration_sha256") != fingerprint(config):
        raise InputError(f"{folder} belongs to another configuration: run.nc was not made from this config.toml")
    return config, found


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def check_finished(folder: Path, name: str) -> None:
    """Make sure that a folder that is in the way is the run of this name, whole.

    Raises
    ------
    InputError
        When it is damaged or another run's; nothing in it is touched.
    """
    scalars = read_scalars(folder)[1]
    if scalars.get("hash") != name:
        raise InputError(f"{folder} belongs to another configuration; move it away or choose another --out")
    check_files(folder, {"files_sha256": '{"state.npz": ""}', **scalars})
