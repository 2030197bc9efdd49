"""A chip of leaky integrate-and-fire neurons in layers, simulated event by event; `spiking_description` has its equations.

::

    host --events--> [ synapses 1 ] --> neurons 1 --link--> [ synapses 2 ] --> neurons 2 --link--> ... --> outputs --> host
                                          |  ^
                                          [ recurrent synapses 1 ]

Where an imperfection is on, it acts here: weights, delays and decays are rounded when they are written (`synapse_memory`); each
neuron has its own time constant, threshold and gain, or is stuck (`neuron_mismatch`); what hidden neurons send to the next layer
goes over links that have a capacity, lose spikes and delay them (`spike_link`). Inputs come over a link that errs in nothing, and
a layer's own spikes, to its recurrent synapses, over none. What is counted, `spiking_accounts` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.neuron_mismatch import NeuronMismatch
from inmaterio.devices.randomness import Key
from inmaterio.devices.spike_link import SpikeLink
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators.capabilities import Array, Port, Request, Samples, Spikes
from inmaterio.simulators.digital_twin import DigitalOracle
from inmaterio.simulators.perceptron import check_widths
from inmaterio.simulators.scalar_wave import run_in_threads
from inmaterio.simulators.spiking_accounts import Activity, activity_of, counted_events
from inmaterio.simulators.spiking_description import DELAYS, READOUTS, SpikingDescription
from inmaterio.simulators.spiking_kernels import run_samples
from inmaterio.simulators.spiking_memory import SpikingMemory
from inmaterio.simulators.spiking_records import Neurons, NeuronValues, Plan, Results, Synapses
from inmaterio.simulators.substrate import AbstractSubstrate, check_batch

Counts = NDArray[np.int64]

BLOCK_STEPS = 128
"""Steps per block of time: results do not depend on it."""


@final
class SpikingNetwork(AbstractSubstrate):
    """One chip made to a `SpikingDescription`.

    Capabilities: Forward, ReadStates, Spiking, Twin, Program, ReadBack.

    Parameters
    ----------
    description : SpikingDescription
    chip : Key
        Stream of the static errors of this chip.
    block_steps : int
        Steps per block of time; changes no result.
    """

    def __init__(self, description: SpikingDescription, chip: Key, *, block_steps: int = BLOCK_STEPS) -> None:
        self.description = description
        self._memory = SpikingMemory(description)
        self._layers = len(description.widths) - 1
        self._neurons = description.widths[1:]
        self._dtype = np.dtype(description.dtype)
        ports = {
            "input": Port(description.widths[0], "spike", 0.0, np.inf),
            "output": Port(description.widths[-1], "1", -np.inf, np.inf),
        }
        super().__init__(self._memory.parameters, ports)
        mismatch = NeuronMismatch(
            description.tau_mismatch, description.threshold_mismatch, description.gain_mismatch, description.stuck_fraction
        )
        self._link = SpikeLink(
            description.link_capacity, description.link_policy, description.spike_drop, description.spike_jitter
        )
        self._leaks, self._thresholds, self._gains = [], [], []
        for k, width in enumerate(self._neurons, start=1):
            last, key = k == self._layers, chip.at("neurons", k)
            leak = description.held_leak(description.output_leak if last else description.leak)
            self._leaks.append(mismatch.leaks(leak, width, key))
            thresholds = mismatch.thresholds(description.threshold, width, key)
            never = np.full(width, not description.spiking_outputs) if last else mismatch.stuck(width, key)
            self._thresholds.append(np.where(never, np.inf, thresholds))
            self._gains.append(mismatch.gains(width, key))
        self._block_steps = int(block_steps)
        self._synapses: Synapses | None = None
        self._wired: Neurons | None = None

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of `capabilities.CAPABILITIES`."""
        return frozenset({"Forward", "ReadStates", "Spiking", "Twin", "Program", "ReadBack"})

    @property
    def traits(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def nominal(self) -> SpikingDescription:
        """What the chip is made to, as its data sheet says: none of its own errors."""
        return self.description

    # What it does ----------------------------------------------------------------------------------------------------

    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Scores (batch, outputs) of every sample, presented from rest.

        Raises
        ------
        InputError
            When the inputs do not fit the port.
        """
        return self._scores(self._present(inputs, samples, key))

    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """How many spikes of each neuron of every hidden layer came to the next layer, (batch, width) each, and the scores."""
        results = self._present(inputs, samples, key)
        counts = [results.sent[:, part].astype(self._dtype) for part in self._parts()[:-1]]
        return (*counts, self._scores(results))

    def run(self, inputs: Array, *, samples: Samples, key: Key, membranes: bool = False, on_chip: bool = False) -> Spikes:
        """Present each sample from rest and record the spikes of every layer; on request every membrane in every step.

        With `on_chip` membranes go to a learning engine beside the neurons and are not charged as reads.
        """
        results = self._present(inputs, samples, key, record=True, membranes=membranes, charged=not on_chip)
        parts = self._parts()
        spiking = parts if self.description.spiking_outputs else parts[:-1]
        shown = tuple(np.ascontiguousarray(results.membranes[:, :, part]) for part in parts) if membranes else ()
        sent = tuple(np.ascontiguousarray(results.spikes[:, :, part]) for part in spiking)
        made = tuple(np.ascontiguousarray(results.made[:, :, part]) for part in spiking) if results.made.size else sent
        return Spikes(self._scores(results), sent, made, shown)

    def activity(self, inputs: Array, *, samples: Samples, key: Key) -> Activity:
        """What goes on in a forward pass, counted; charged as one."""
        results = self._present(inputs, samples, key)
        return activity_of(results, self._scores(results))

    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests to the synapse memories, which take no draw: digital words are exact.

        Raises
        ------
        InputError
            On an unknown parameter, a wrong shape, a value that is not finite, a delay outside [0, max_delay], or one that is no
            multiple of the resolution where that is refused; nothing is written then.
        """
        for name, words in self._memory.program(requests).items():
            self._count(name, "synapse_write", words)
        self._tally("program_call", 1)
        self._synapses = None

    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """What every memory holds."""
        for name in self._parameters:
            self._count(name, "byte_sram", self._memory.bytes(name))
        return self._memory.held()

    def synapses(self, *, key: Key) -> Mapping[str, Array]:
        """What every memory holds, as a learning engine beside the synapses finds it: not charged."""
        return self._memory.held()

    def twin(self) -> Any:
        """The network with the values last asked for, as a ``torch.nn.Module``: no errors of the chip."""
        from inmaterio.simulators.spiking_twin import make_twin

        return make_twin(self.description, self._memory.nominal())

    def oracle(self) -> DigitalOracle:
        """The network with the values that the memories hold and the chip's own neurons, in float64, with ideal links.

        Its gradient is the surrogate gradient of `spiking_twin`: the true one of a spiking network is zero or does not exist.
        """
        from inmaterio.simulators.spiking_twin import make_twin

        exact = make_twin(replace(self.description, dtype="float64"), self._memory.held(), neurons=self.neurons())
        return DigitalOracle(exact, self._parameters, self._ports["output"])

    def neurons(self) -> list[NeuronValues]:
        """What the chip's own neurons are, layer by layer: for exact models, never measured."""
        return [NeuronValues(*one) for one in zip(self._leaks, self._thresholds, self._gains, strict=True)]

    def snapshot(self) -> dict[str, Any]:
        """Memories and clock, as arrays and numbers."""
        return {"clock_s": self._clock_s} | self._memory.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""
        self._memory.restore(snapshot)
        self._clock_s = float(snapshot["clock_s"])
        self._synapses = None

    # How it does it --------------------------------------------------------------------------------------------------

    def _present(
        self,
        inputs: Array,
        samples: Samples,
        key: Key,
        *,
        record: bool = False,
        membranes: bool = False,
        charged: bool = True,
    ) -> Results:
        """Run a batch and count its events; `charged`: whether its membranes are reads."""
        given = np.asarray(inputs)
        if (
            given.ndim != 2
            or given.shape[1] != self._ports["input"].size
            or len(given) == 0
            or np.shape(samples) != (len(given),)
        ):
            check_batch(given, samples, self._ports["input"])
        if given.dtype.kind not in "biuf":
            raise InputError(f"input holds {given.dtype} values; expected real numbers")
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is refused as such
            driven = np.ascontiguousarray(given, dtype=self._dtype)
        synapses, neurons = self._wiring()
        batch, total, width, layers = len(driven), self.description.total_steps, len(neurons.leak), self._layers
        results = Results(
            scores=np.zeros((batch, self._neurons[-1])),
            sent=np.zeros((batch, width), dtype=np.int64),
            synapse_counts=np.zeros((batch, 2 * layers, 5), dtype=np.int64),
            layer_counts=np.zeros((batch, layers, 6), dtype=np.int64),
            spikes=np.zeros((batch, total if record else 0, width), dtype=np.uint8),
            made=np.zeros((batch, total if record and self._link.errs else 0, width), dtype=np.uint8),
            membranes=np.zeros((batch, total if membranes else 0, width), dtype=self._dtype),
        )
        bad = np.zeros(batch, dtype=bool)
        indices = np.ascontiguousarray(samples, dtype=np.int64)
        run_in_threads(_run_part, (driven, indices, bad, *results), self._plan(key), synapses, neurons)
        if bad.any():
            check_batch(driven, samples, self._ports["input"])  # names the value and its place
        self._charge(results, batch, membranes and charged)
        return results

    def _wiring(self) -> tuple[Synapses, Neurons]:
        """What the kernels read of memories and neurons, made again after something was written."""
        if self._synapses is None or self._wired is None:
            self._synapses = self._memory.synapses(self._gains)
            thresholds = np.concatenate(self._thresholds).astype(self._dtype)
            # above a threshold is at or above the next number: exact, and no choice to make for each neuron
            least = np.nextafter(thresholds, self._dtype.type(np.inf)) if self.description.strict else thresholds
            bias = np.concatenate([self._memory.bias(k) for k in range(1, self._layers + 1)])
            self._wired = Neurons(np.concatenate(self._leaks).astype(self._dtype), bias, least, thresholds)
        return self._synapses, self._wired

    def _plan(self, key: Key) -> Plan:
        about = self.description
        max_delay = 0 if about.delays == "none" else int(about.max_delay)
        keys = [key.at("link", k) for k in range(1, self._layers + 1)]
        words = [self._link.words(one) if self._link.draws else (0, 0, 0, 0) for one in keys]
        return Plan(
            widths=np.array(about.layer_widths, dtype=np.int64),
            steps=int(about.steps),
            total_steps=int(about.total_steps),
            block=self._block_steps,
            max_delay=max_delay,
            reach=max_delay + self._link.latest,
            delays=DELAYS.index(about.delays),
            recurrent=bool(about.recurrent),
            soft=about.reset == "soft",
            refractory_steps=int(about.refractory_steps),
            readout=READOUTS.index(about.readout),
            capacity=int(about.link_capacity or 0),
            stall=about.link_policy == "stall",
            drop=float(about.spike_drop),
            jitter=float(about.spike_jitter),
            link_keys=np.array(words, dtype=np.uint64),
        )

    def _scores(self, results: Results) -> Array:
        return results.scores.astype(self._dtype)

    def _parts(self) -> list[slice]:
        """Where each layer's neurons stand."""
        ends = np.cumsum(self._neurons)
        return [slice(int(end) - width, int(end)) for end, width in zip(ends, self._neurons, strict=True)]

    # What it costs ---------------------------------------------------------------------------------------------------

    def _charge(self, results: Results, batch: int, membranes: bool) -> None:
        """Count what a batch did, and let its time pass."""
        steps = batch * self.description.total_steps
        for component, event, amount in counted_events(self.description, results, membranes=membranes):
            self._count(component, event, amount)
        self._tally("device_pass", batch)
        self._tally("sample", batch)
        self._tally("step", steps)
        self._spend(steps * self.description.seconds_per_step)


def _run_part(driven: Array, samples: Counts, bad: NDArray[np.bool_], *arrays: Any) -> None:
    """`run_samples` on a part of a batch; marks a sample whose inputs are no amplitudes."""
    *results, plan, synapses, neurons = arrays
    place = run_samples(driven, samples, Results(*results), plan, synapses, neurons)
    if place >= 0:
        bad[place] = True


OPTIONS = SpikingDescription
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "spiking-ideal": {"tail_steps": 24},
    "spiking-recurrent": {"tail_steps": 24, "recurrent": True},
    "spiking-imperfect": {
        "tail_steps": 24,
        "weight_bits": 6,
        "weight_max": 1.0,
        "tau_mismatch": 0.1,
        "threshold_mismatch": 0.1,
        "gain_mismatch": 0.1,
        "spike_drop": 0.01,
        "spike_jitter": 0.5,
        "stuck_fraction": 0.01,
    },
    "spiking-loihi": {"weight_bits": 8, "weight_max": 1.0, "max_delay": 62, "tail_steps": 62, "decay_bits": 12, "trace_bits": 7},
}
"""Substrates of this file by name. Each goes on for as many steps as its largest delay after an input has ended.

The imperfect one's figures are assumed: 6-bit weights as on BrainScaleS-2, a mismatch of 10 % as by default in Rockpool, and a
spike in a hundred lost.

The limits of ``spiking-loihi`` are those of the first Loihi (Davies et al., IEEE Micro 38, 82 (2018)): delays of 0 to 62 steps,
decays that are multiples of 1/4096, and the weights of its mixed-sign mode, even numbers from -256 to 254, 8 bits. Levels here
are symmetric: level k of -127 .. 127 is the weight 2 k there, weight_max being 254, and -256 is not used; a threshold of 1 is
then 254 / weight_max there. Membranes, drives, biases and thresholds are floating point where the chip has integers. Its 7-bit
traces are what rules learn from that run on the chip (``engine="chip"``).
"""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> SpikingNetwork:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Steps times input channels, neurons per hidden layer, output neurons.
    chip : Key
        Stream of its static errors.
    **options
        Other fields of `SpikingDescription`.

    Raises
    ------
    InputError
        On an unknown option or a value out of range.

    Examples
    --------
    >>> network = build((100 * 140, 256, 20), chip=Key(0), steps=100)
    >>> network.parameters["delay_1"].shape
    (256, 140)
    """
    return SpikingNetwork(describe(widths, options), chip)


def describe(widths: Sequence[int], options: Mapping[str, Any]) -> SpikingDescription:
    """The description that `build` has from widths and options.

    Raises
    ------
    InputError
        As `build`.
    """
    known = [field.name for field in fields(SpikingDescription) if field.name != "widths"]
    for name in options:
        check_name("option of a spiking network", name, known)
    return SpikingDescription(check_widths(widths), **options)
