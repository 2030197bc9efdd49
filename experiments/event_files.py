"""Events in HDF5 files laid out like the Heidelberg spiking data sets, SHD and SSC, and their numbers per step.

A file holds ``spikes/times`` (per sample an array of seconds), ``spikes/units`` (per sample as many channel numbers from 0) and
``labels`` (one per sample), and may hold ``extra/speaker`` (one per sample), ``extra/keys`` (names of the classes) and
``extra/meta_info``, which is not read.

Source: B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg spiking data sets for the systematic evaluation of spiking
neural networks", IEEE Trans. Neural Netw. Learn. Syst. 33, 2744 (2022). Steps of 10 ms, sums of five neighbouring channels and
times from the first spike on: Hammouamri, Khalfaoui-Hassani, Masquelier, ICLR 2024, arXiv:2306.17670.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_range
from inmaterio.experiments.splits import Rows

UNITS = 700
"""Channels of SHD and SSC."""

REQUIRED = ("spikes/times", "spikes/units", "labels")

READ_AT_ONCE = 512
"""Samples that are held as events at a time: a whole file of them takes many times the memory of its counts."""

MOST_IN_A_STEP = 255
"""What an element of the counts can hold."""


@dataclass(frozen=True, slots=True)
class Binning:
    """How events become numbers of spikes per step.

    Attributes
    ----------
    step_s : float
        Duration of a step, s.
    units : int
        Channels of the file.
    channels : int
        Channels of the data set, which divide `units`: each is the sum of neighbours.
    steps : int or None
        Steps of a row; None: as many as the longest sample needs.
    aligned : bool
        Whether time begins with the first spike of each sample.
    binary : bool
        Whether an element says only that there was a spike.
    cut : bool
        Whether events after the last step are left out; they are refused otherwise.
    sort : bool
        Whether events that are not in the order of their times are put into it; they are refused otherwise.

    Raises
    ------
    InputError
        When the channels do not divide the units, or a number is out of range.
    """

    step_s: float = 10e-3
    units: int = UNITS
    channels: int = 140
    steps: int | None = None
    aligned: bool = True
    binary: bool = False
    cut: bool = False
    sort: bool = False

    def __post_init__(self) -> None:
        check_range("step", self.step_s, low=0.0, low_open=True, high_open=True, unit="s")
        for name, value in (("units", self.units), ("channels", self.channels), ("steps", self.steps)):
            if value is not None:
                check_range(name, value, low=1)
        if self.units % self.channels:
            raise InputError(f"channels is {self.channels}, which does not divide {self.units} units; expected a divisor of them")


@dataclass(frozen=True, slots=True, eq=False)
class EventFile:
    """What one file holds, in steps.

    Attributes
    ----------
    path : Path
    events : list of ndarray of int64, shape (k, 2)
        Step and channel of every event, per sample.
    labels : ndarray of int64, shape (n,)
    speakers : ndarray of int64, shape (n,), or None
        None when the file does not say.
    class_names : tuple of str
        Empty when the file does not say.
    """

    path: Path
    events: list[NDArray[np.int64]]
    labels: Rows
    speakers: Rows | None
    class_names: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Steps that the longest sample needs."""
        return max((int(one[-1, 0]) + 1 for one in self.events if len(one)), default=1)


def read_event_file(path: Path, binning: Binning) -> EventFile:
    """Read one file.

    Parameters
    ----------
    path : Path
    binning : Binning
        Step floor((t - t0) / step) of an event at t, computed in float64 whatever the file holds; t0 is 0 or the sample's first
        time.

    Returns
    -------
    EventFile

    Raises
    ------
    InputError
        When the file cannot be read or lacks a group, numbers of samples or events differ, or an event has a time that is
        negative, not finite, earlier than the one before it (unless `sort`) or after the last step (unless `cut`), or a unit out
        of range: with the sample, the place in it, the value and the limit.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        archive = next((one for one in (path.with_suffix(".h5.zip"), path.with_suffix(".h5.gz")) if one.is_file()), None)
        if archive is not None and not path.exists():
            raise InputError(f"{path} is not there, {archive.name} is; expected it unpacked") from error
        reason = "no such file" if not path.exists() else " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}; expected an HDF5 file laid out like SHD") from error
    with file:
        for name in REQUIRED:
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"{path} has no {name}; expected {', '.join(REQUIRED)}, the layout of SHD")
        counts = {name: len(file[name]) for name in REQUIRED}
        if len(set(counts.values())) > 1 or not counts["labels"]:
            shown = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise InputError(f"{path} holds {shown}; expected as many of each, and at least one")
        labels = _whole_numbers(path, "labels", file["labels"][()])
        events = [_steps_of(path, place, *pair, binning) for place, pair in enumerate(_samples(file))]
        speakers = None
        if isinstance(file.get("extra/speaker"), h5py.Dataset):
            speakers = _whole_numbers(path, "extra/speaker", file["extra/speaker"][()])
            if len(speakers) != len(labels):
                raise InputError(f"{path} holds {len(labels)} labels and {len(speakers)} extra/speaker; expected as many of both")
        names: tuple[str, ...] = ()
        if isinstance(file.get("extra/keys"), h5py.Dataset):
            names = tuple(one.decode() if isinstance(one, bytes) else str(one) for one in file["extra/keys"][()])
            if labels.max() >= len(names):
                raise InputError(f"{path} has label {labels.max()} and {len(names)} extra/keys; expected a name for every label")
    return EventFile(path, events, labels, speakers, names)


def counts_of(file: EventFile, binning: Binning, steps: int) -> NDArray[np.uint8]:
    """Numbers of spikes per step and channel.

    Returns
    -------
    ndarray of uint8, shape (n, steps * channels)
        Element t * channels + c.

    Raises
    ------
    InputError
        When an element is above 255.
    """
    size = steps * binning.channels
    rows = np.zeros((len(file.events), size), np.uint8)
    for place, events in enumerate(file.events):
        found = np.bincount(events[:, 0] * binning.channels + events[:, 1], minlength=size)
        if binning.binary:
            np.minimum(found, 1, out=found)
        if found.max() > MOST_IN_A_STEP:
            step, channel = divmod(int(found.argmax()), binning.channels)
            raise InputError(
                f"{file.path} has {found.max()} events in step {step} of channel {channel} "
                f"of sample {place}; expected at most {MOST_IN_A_STEP}, so a shorter step, more channels or binary=1"
            )
        rows[place] = found
    return rows


def _samples(file: Any) -> Iterator[tuple[Any, Any]]:
    """Times and units of each sample."""
    times, units = file["spikes/times"], file["spikes/units"]
    for start in range(0, len(times), READ_AT_ONCE):
        yield from zip(times[start : start + READ_AT_ONCE], units[start : start + READ_AT_ONCE], strict=True)


def _steps_of(path: Path, place: int, times: Any, units: Any, binning: Binning) -> NDArray[np.int64]:
    """Step and channel of the events of a sample, shape (k, 2)."""
    where = f"sample {place} of {path}"
    # float16 and float32 in the file: what is computed in them would round again
    seconds, numbers = np.asarray(times, dtype=np.float64), np.asarray(units)
    if seconds.ndim != 1 or numbers.shape != seconds.shape or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise InputError(
            f"{where} has times of shape {seconds.shape} and {numbers.dtype} units of shape {numbers.shape}; "
            "expected a row of each, as long, units being whole numbers"
        )
    if not len(seconds):
        return np.zeros((0, 2), np.int64)
    numbers = numbers.astype(np.int64)

    def refuse(bad: NDArray[np.bool_], what: str, values: NDArray[Any], expected: str) -> None:
        if bad.any():
            first = int(np.argmax(bad))
            raise InputError(f"{where} has {what} {values[first]:.9g} at event {first}; expected {expected}")

    refuse(~np.isfinite(seconds), "time", seconds, "a finite number of seconds")
    refuse(seconds < 0, "time", seconds, "at least 0 s")
    refuse((numbers < 0) | (numbers >= binning.units), "unit", numbers, f"a unit in [0, {binning.units - 1}]")
    earlier = np.concatenate([[False], np.diff(seconds) < 0])
    if earlier.any() and not binning.sort:
        first = int(np.argmax(earlier))
        raise InputError(
            f"{where} has time {seconds[first]:.9g} s at event {first}, after {seconds[first - 1]:.9g} s; "
            "expected times that never fall, or sort=1"
        )
    order = np.argsort(seconds, kind="stable")
    seconds, numbers = seconds[order], numbers[order]
    steps = np.floor((seconds - (seconds[0] if binning.aligned else 0.0)) / binning.step_s).astype(np.int64)
    if binning.steps is not None and steps[-1] >= binning.steps:
        if not binning.cut:
            length = f"{(steps[-1] + 1) * binning.step_s:g} s"
            raise InputError(
                f"{where} is {steps[-1] + 1} steps of {binning.step_s:g} s long ({length}); "
                f"expected at most steps = {binning.steps}, or cut=1"
            )
        kept = steps < binning.steps
        steps, numbers = steps[kept], numbers[kept]
    return np.column_stack([steps, numbers // (binning.units // binning.channels)])


def _whole_numbers(path: Path, name: str, values: Any) -> Rows:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{path} has {name} of shape {array.shape} and type {array.dtype}; expected a row of whole numbers")
    if array.min() < 0:
        raise InputError(f"{path} has {name} {array.min()} at sample {int(array.argmin())}; expected at least 0")
    return array.astype(np.int64)
