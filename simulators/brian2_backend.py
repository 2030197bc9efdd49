"""The same spiking network in Brian2, an engine written by others: to go on there, and to check this one against it.

Brian2 is a package of its own (``pip install inmaterio[spiking]``) and is imported only here, when it is asked for.

**The step between layers.** Here a spike sent in step t with delay d arrives in step t + d. Brian2 goes through a step as
groups, thresholds, synapses, resets: a spike is delivered after the neurons of its step were updated, so that delay d arrives
in t + d + 1. Delays stay what they are; instead layer k of the Brian2 network runs k steps behind the input, and what is handed
back is shifted by k again. A layer's own synapses need no shift: they are t + 1 + d here too.

**Several samples** follow each other in one run, `period` steps apart, which is long enough for the last delayed spike of a
sample to have arrived. A layer k is awake from step k to k + T of each period: it starts from rest and sends no spikes
outside, so that samples do not meet.

**The same bits.** Membranes are h = leak v + (drive + bias) in the dtype of the description, each operation rounded by itself
under any compiler flags. Brian2 adds synaptic events in an order of its own: spike trains agree exactly where sums do not depend
on order (weights on multiples of a power of two), else but for a neuron within rounding of its threshold.
"""

import importlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import Array, Spikes
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_values import Values, checked_values, refuse_unmapped

TARGETS = ("numpy", "cython", "cpp_standalone")
"""Brian2's code generation: none, compiled per object (about two minutes the first time), a program of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Brian2Network:
    """The objects of a Brian2 network, to run, to change or to add to.

    Attributes
    ----------
    network : brian2.Network
        Holds all below.
    input : brian2.SpikeGeneratorGroup
        The events of all samples, one after another.
    layers : tuple of brian2.NeuronGroup
        Every layer after the input; variables ``v``, ``h``, ``drive``, ``bias``, ``leak``, ``limit``.
    synapses : tuple of brian2.Synapses
        Between layers, then of each layer onto itself; variable ``w``.
    spikes : tuple of brian2.SpikeMonitor
        Of each layer that spikes.
    membranes : tuple of brian2.StateMonitor
        ``h`` of the last layer, or of every layer where that was asked for.
    description : SpikingDescription
    samples : int
    period : int
        Steps from the start of one sample to that of the next.
    """

    network: Any
    input: Any
    layers: tuple[Any, ...]
    synapses: tuple[Any, ...]
    spikes: tuple[Any, ...]
    membranes: tuple[Any, ...]
    description: SpikingDescription
    samples: int
    period: int

    @property
    def duration(self) -> Any:
        """What to run `network` for, a Brian2 time."""
        return self.samples * self.period * self.network_dt

    @property
    def network_dt(self) -> Any:
        """A step, a Brian2 time."""
        return self.description.seconds_per_step * _brian2().second


def brian2_network(
    description: SpikingDescription, values: Mapping[str, Array], inputs: Array, *, membranes: bool = False
) -> Brian2Network:
    """Build the network in Brian2, for the device that is active there, without running it.

    Parameters
    ----------
    description : SpikingDescription
        Its `weight_bits`, `delay_resolution` and `decay_bits` are what `values` have to stand on and the leak is rounded to.
    values : mapping of str to ndarray
        See `inmaterio.simulators.spiking_values.checked_values`.
    inputs : array_like, shape (batch, steps * channels)
        As the substrate takes them.
    membranes : bool
        Record h of every layer instead of the last alone.

    Returns
    -------
    Brian2Network

    Raises
    ------
    InputError
        Brian2 is not installed; what Brian2 has no counterpart for; values or inputs that do not fit the description.
    """
    held, events = _checked(description, values, inputs)
    b2 = _brian2()
    dt = description.seconds_per_step * b2.second
    layers = len(description.widths) - 1
    reach = description.max_delay if description.delays != "none" else 0
    period = description.total_steps + layers + reach + 1
    clock = b2.Clock(dt=dt, name="steps*")

    drive = events.reshape(len(events), description.steps, description.channels)
    sample, step, channel = np.nonzero(drive)
    source = b2.SpikeGeneratorGroup(
        description.channels, channel, (sample * period + step) * dt, clock=clock, name="input_events*"
    )
    amplitude = None if np.isin(events, (0.0, 1.0)).all() else _amplitudes(b2, drive, period, dt)

    groups = tuple(_layer(b2, description, held, k, period, clock) for k in range(1, layers + 1))
    couplings = [
        _coupling(b2, description, held, f"{{}}_{k}", sender, to, clock, amplitude if k == 1 else None)
        for k, (sender, to) in enumerate(zip((source, *groups), groups, strict=False), start=1)
    ]
    if description.recurrent:
        couplings += [
            _coupling(b2, description, held, f"recurrent_{{}}_{k}", group, group, clock, None)
            for k, group in enumerate(groups[:-1], start=1)
        ]
    spiking = groups if description.spiking_outputs else groups[:-1]
    spikes = tuple(b2.SpikeMonitor(group, name="spikes*") for group in spiking)
    shown = groups if membranes else groups[-1:]
    probes = tuple(b2.StateMonitor(one, "h", record=True, clock=clock, when="after_groups", name="membranes*") for one in shown)
    couplings_kept = tuple(one for one in couplings if one is not None)
    network = b2.Network(source, *groups, *couplings_kept, *spikes, *probes)
    return Brian2Network(network, source, groups, couplings_kept, spikes, probes, description, len(events), period)


def read_brian2(built: Brian2Network) -> Spikes:
    """What a network that has run shows, in the steps of this package.

    Membranes are handed back for every layer or for none, as with `Spiking.run`; scores come from the recorded ones.
    """
    description, steps = built.description, built.description.total_steps
    trains = []
    for k, monitor in enumerate(built.spikes, start=1):
        train = np.zeros((built.samples, steps, description.widths[k]), dtype=np.uint8)
        at = np.rint(np.asarray(monitor.t / built.network_dt)).astype(np.int64)
        train[at // built.period, at % built.period - k, np.asarray(monitor.i)] = 1
        trains.append(train)
    first = len(built.layers) - len(built.membranes) + 1
    membranes = tuple(
        np.asarray(monitor.h).T.reshape(built.samples, built.period, -1)[:, k : k + steps].astype(description.dtype)
        for k, monitor in enumerate(built.membranes, start=first)
    )
    scores = _scores(description, membranes[-1], trains[-1] if description.spiking_outputs else None)
    return Spikes(scores, tuple(trains), tuple(trains), membranes if len(membranes) == len(built.layers) else ())


def run_in_brian2(
    description: SpikingDescription,
    values: Mapping[str, Array],
    inputs: Array,
    *,
    membranes: bool = False,
    target: str = "numpy",
) -> Spikes:
    """Build the network in Brian2, run it, and hand back what it shows, the step between layers taken out.

    Parameters
    ----------
    description, values, inputs, membranes
        As in `brian2_network`.
    target : str
        One of `TARGETS`. Brian2's device and preferences are put back afterwards.

    Returns
    -------
    Spikes

    Raises
    ------
    InputError
        As `brian2_network`; an unknown target.
    """
    check_name("target", target, TARGETS)
    _checked(description, values, inputs)
    b2 = _brian2()
    with _code_generation(b2, target):
        built = brian2_network(description, values, inputs, membranes=membranes)
        built.network.run(built.duration)
        return read_brian2(built)


def _checked(description: SpikingDescription, values: Mapping[str, Array], inputs: Array) -> tuple[Values, NDArray[np.float64]]:
    """Values and inputs as float64, or what is wrong with them."""
    refuse_unmapped(description, "Brian2")
    events = check_array("inputs", inputs, shape=(None, description.widths[0]), low=0.0)
    return checked_values(description, values), np.asarray(events, dtype=np.float64)


def _brian2() -> Any:
    """The package, imported when it is first needed."""
    try:
        return importlib.import_module("brian2")
    except ImportError as error:
        raise InputError(
            f"brian2 cannot be imported ({error}); expected it installed: pip install 'inmaterio[spiking]'"
        ) from None


@contextmanager
def _code_generation(b2: Any, target: str) -> Iterator[None]:
    before = b2.prefs["codegen.target"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            if target == "cpp_standalone":
                b2.set_device("cpp_standalone", directory=folder, debug=False)
            else:
                b2.prefs["codegen.target"] = target
            yield
        finally:
            if target == "cpp_standalone":
                b2.device.reinit()
                importlib.import_module("brian2.devices.device").reset_device()
            b2.prefs["codegen.target"] = before


def _layer(b2: Any, description: SpikingDescription, held: Values, k: int, period: int, clock: Any) -> Any:
    """Neurons of layer k; everything that may differ between neurons is a variable, so that a user can set it."""
    last = k == len(description.widths) - 1
    model = "\n".join(
        ["v : 1", "h : 1", "drive : 1", "x : 1", "kept : 1", "bias : 1", "leak : 1", "limit : 1"]
        + ["waiting : integer", "ready : integer", "awake : integer"]
    )
    spiking = not last or description.spiking_outputs
    # names instead of numbers in the code: Brian2 then finds what it has compiled before for networks of other sizes
    constants = {
        "period": period,
        "first": k,
        "last": k + description.total_steps,
        "refractory_steps": description.refractory_steps,
    }
    options: dict[str, Any] = {"namespace": constants}
    if spiking:
        options["threshold"] = f"h {'>' if description.strict else '>='} limit and ready > 0 and awake > 0"
        after = "v = 0" if description.reset == "hard" else "v = h - limit"
        options["reset"] = f"{after}\nwaiting = refractory_steps"
    group = b2.NeuronGroup(
        description.widths[k], model, clock=clock, dtype=np.dtype(description.dtype), name=f"layer_{k}*", **options
    )
    group.bias = held[f"bias_{k}"]
    group.leak = description.held_leak(description.output_leak if last else description.leak)
    group.limit = description.threshold
    # The product is rounded and stored by a function of its own, so that no compiler fuses it with the sum, whatever its flags.
    group.run_regularly(
        """place = t_in_timesteps % period
           awake = int(place >= first and place < last)
           waiting = waiting * int(place != first)
           ready = int(waiting == 0)
           v = v * int(place != first)
           kept = leak * v
           x = drive + bias
           drive = 0""",
        clock=clock,
        when="groups",
        order=0,
    )
    group.run_regularly(
        """h = ready * (kept + x) + (1 - ready) * v
           v = h
           waiting = waiting - 1 + ready""",
        clock=clock,
        when="groups",
        order=1,
    )
    return group


def _coupling(
    b2: Any,
    description: SpikingDescription,
    held: Values,
    names: str,
    sender: Any,
    to: Any,
    clock: Any,
    amplitude: Any,
) -> Any:
    """Synapses of one coupling, those with a weight; None where there are none."""
    weight = held[names.format("weight")]
    target, source = np.nonzero(weight)
    if not len(target):
        return None
    event = "drive_post += w" if amplitude is None else "drive_post += w * amplitude(t - (lag - 0.5) * step, i)"
    synapses = b2.Synapses(
        sender,
        to,
        "w : 1\nlag : 1" if amplitude is not None else "w : 1",
        on_pre=event,
        clock=clock,
        dtype=np.dtype(description.dtype),
        namespace={} if amplitude is None else {"amplitude": amplitude, "step": description.seconds_per_step * b2.second},
        name=f"{names.format('synapses')}*",
    )
    synapses.connect(i=source, j=target)
    synapses.w = weight[target, source]
    if description.delays != "none":
        delay = held[names.format("delay")]
        steps = delay[target, source] if delay.ndim == 2 else delay[source]
        synapses.delay = steps * description.seconds_per_step * b2.second
        if amplitude is not None:
            synapses.lag = steps
    return synapses


def _amplitudes(b2: Any, drive: NDArray[np.float64], period: int, dt: Any) -> Any:
    """How large the event of each channel is in each step of the run, for inputs that are not all 0 or 1."""
    table = np.zeros((len(drive), period, drive.shape[2]))
    table[:, : drive.shape[1]] = drive
    return b2.TimedArray(table.reshape(-1, drive.shape[2]), dt=dt)


def _scores(
    description: SpikingDescription, membranes: NDArray[np.float64], train: NDArray[np.uint8] | None
) -> NDArray[np.float64]:
    """Scores (batch, outputs) of the output membranes or spikes (batch, steps, outputs): see `READOUTS`."""
    if train is not None:
        return np.asarray(train.sum(axis=1, dtype=np.int64), dtype=description.dtype)
    if description.readout == "mean-membrane":
        return np.asarray(membranes.mean(axis=1))
    shifted = np.exp(membranes - membranes.max(axis=2, keepdims=True))
    return np.asarray((shifted / shifted.sum(axis=2, keepdims=True)).sum(axis=1))
