"""What a chip of spiking neurons is made to: layers, time, delays, neurons, and the limits and errors of its hardware.

In step t of T, with x_j the drive of neuron j of layer k, v its membrane and s its spikes,

    x_j[t] = bias_j + sum_i weight_ji s_i[t - delay_ji]
           + sum_i recurrent_weight_ji s_i[t - 1 - recurrent_delay_ji]        the same layer's own spikes
    h_j[t] = leak_j v_j[t - 1] + x_j[t]
    s_j[t] = 1 where h_j[t] >= threshold_j (strict: >), and the neuron is not refractory; else 0
    v_j[t] = 0 where it spiked with a hard reset, h_j[t] - threshold_j with a soft one, else h_j[t]

A refractory neuron holds v = 0 (hard) or v as its reset left it (soft) and takes no drive, for `refractory_steps` steps after
each spike. A spike sent at t with delay d arrives in step t + d, from layer to layer without a step of its own; one that would
arrive after the last step is lost, and counted as such. Neurons of the last layer of a membrane readout do not spike; their
membranes are read in each step.

Inputs are events: element (t, c) of a sample (steps, channels), flattened, is how many spikes channel c sends in step t, or the
amplitude of one.

Sources of the neuron and of the convention of delays: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670;
of the limits of the chip in the preset ``spiking-loihi``: Davies et al., IEEE Micro 38, 82 (2018).
"""

from dataclasses import dataclass

import numpy as np

from inmaterio.devices.spike_trace import SpikeTrace
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.capabilities import Parameter
from inmaterio.simulators.perceptron import check_widths

DELAYS = ("none", "synaptic", "axonal")
"""No delays; one per synapse (to, from); one per sending neuron (from,)."""

RESETS = ("hard", "soft")
READOUTS = ("softmax-sum", "mean-membrane", "spike-count")
"""Scores of a sample: sum over steps of softmax of the output membranes, as published with DCLS; their mean over steps; or how
often each output neuron, a spiking one then, has spiked."""

LINK_POLICIES = ("drop-newest", "stall")
"""What a layer's link does with more spikes in a step than it can carry: those of the highest-numbered neurons are lost, or
wait for the next step."""

DELAY_ROUNDINGS = ("nearest", "refuse")
"""What writing a delay that is no multiple of `delay_resolution` does: it is rounded, half to even, or refused."""


@dataclass(frozen=True, slots=True)
class SpikingDescription:
    """A feed-forward or layer-wise recurrent network of leaky integrate-and-fire neurons. Hardware errors are off by default.

    Attributes
    ----------
    widths : tuple of int
        ``steps`` times the number of input channels, neurons per hidden layer, output neurons.
    steps : int
        Time steps of an input.
    tail_steps : int
        Steps that are simulated after the input has ended, so that delayed spikes arrive.
    seconds_per_step : float
        Modelled duration of a step, s.
    delays : str
        One of `DELAYS`.
    max_delay : int
        Largest delay, steps.
    recurrent : bool
        Whether hidden layers have synapses onto themselves.
    leak, output_leak : float
        Factor of the membrane from step to step, in [0, 1); of the output neurons.
    threshold : float
        Of the membrane, > 0; 1 unless there is a reason.
    reset : str
        One of `RESETS`.
    strict : bool
        Whether a neuron fires only above its threshold.
    refractory_steps : int
    readout : str
        One of `READOUTS`.
    weight_bits : int or None
        Signed weights on 2^bits - 1 levels, symmetric about a level at zero, in [-weight_max, weight_max]; None rounds nothing.
    weight_max : float
        Largest size of a weight, and of a bias; infinite only without bits.
    bias_bits : int or None
        As `weight_bits`, of biases.
    delay_resolution : int
        Delays are multiples of so many steps.
    delay_rounding : str
        One of `DELAY_ROUNDINGS`.
    decay_bits : int or None
        1 - leak on multiples of 2^-bits; None rounds nothing.
    trace_bits : int or None
        Words of the traces that the chip's learning engine keeps of arriving spikes (`inmaterio.devices.spike_trace`), for rules
        that run on it; None: numbers.
    trace_impulse : int
        Levels of such a word that a spike adds.
    tau_mismatch, threshold_mismatch, gain_mismatch : float
        Relative standard deviations, frozen per chip: of each neuron's time constant -1/ln leak, of its threshold, and of what
        multiplies all its synaptic drive.
    spike_drop : float
        Probability that a spike between layers is lost, in [0, 1).
    spike_jitter : float
        Standard deviation, steps, of what is added to the time of each spike between layers, rounded, never before the spike.
    stuck_fraction : float
        Fraction of hidden neurons that never spike, chosen per chip, in [0, 1).
    link_capacity : int or None
        Most spikes that leave a layer in a step; None: as many as there are.
    link_policy : str
        One of `LINK_POLICIES`.
    hops_per_spike : int
        Hops between routers that each spike takes on its way to the next layer, for the accounts; a layer's own spikes stay
        within its core.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    InputError
        When a value is out of range or does not fit another.
    """

    widths: tuple[int, ...]
    steps: int = 1
    tail_steps: int = 0
    seconds_per_step: float = 1e-3
    delays: str = "synaptic"
    max_delay: int = 24
    recurrent: bool = False
    leak: float = 0.9
    output_leak: float = 0.9
    threshold: float = 1.0
    reset: str = "hard"
    strict: bool = False
    refractory_steps: int = 0
    readout: str = "softmax-sum"
    weight_bits: int | None = None
    weight_max: float = np.inf
    bias_bits: int | None = None
    delay_resolution: int = 1
    delay_rounding: str = "nearest"
    decay_bits: int | None = None
    trace_bits: int | None = None
    trace_impulse: int = 16
    tau_mismatch: float = 0.0
    threshold_mismatch: float = 0.0
    gain_mismatch: float = 0.0
    spike_drop: float = 0.0
    spike_jitter: float = 0.0
    stuck_fraction: float = 0.0
    link_capacity: int | None = None
    link_policy: str = "drop-newest"
    hops_per_spike: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))
        for name, low in (
            ("steps", 1),
            ("tail_steps", 0),
            ("max_delay", 0),
            ("refractory_steps", 0),
            ("delay_resolution", 1),
            ("hops_per_spike", 0),
        ):
            _check_whole(name, getattr(self, name), low=low)
        if self.widths[0] % self.steps:
            raise InputError(
                f"the input has {self.widths[0]} elements, which {self.steps} steps do not divide; expected steps x channels"
            )
        check_range("seconds_per_step", self.seconds_per_step, low=0.0, low_open=True, high_open=True, unit="s")
        for name in ("leak", "output_leak", "spike_drop", "stuck_fraction"):
            check_range(name, getattr(self, name), low=0.0, high=1.0, high_open=True)
        check_range("threshold", self.threshold, low=0.0, low_open=True, high_open=True)
        for name in ("tau_mismatch", "threshold_mismatch", "gain_mismatch", "spike_jitter"):
            check_range(name, getattr(self, name), low=0.0, high_open=True)
        for name, known in (
            ("delays", DELAYS),
            ("reset", RESETS),
            ("readout", READOUTS),
            ("delay_rounding", DELAY_ROUNDINGS),
            ("link_policy", LINK_POLICIES),
            ("dtype", ("float32", "float64")),
        ):
            check_name(name, getattr(self, name), known)
        for name, low, high in (("weight_bits", 2, 24), ("bias_bits", 2, 24), ("decay_bits", 1, 24)):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), low=low, high=high)
        if self.trace_bits is not None:
            SpikeTrace(self.trace_bits, self.trace_impulse)
        if self.link_capacity is not None:
            _check_whole("link_capacity", self.link_capacity, low=1)
        for name in ("leak", "output_leak"):
            leak = getattr(self, name)
            if self.decay_bits is not None and self.held_leak(leak) >= 1.0:
                raise InputError(
                    f"{name} is {leak:g}, which a decay register of {self.decay_bits} bits holds as 1; "
                    f"expected at most {1.0 - 2.0**-self.decay_bits:g}"
                )
        check_range("weight_max", self.weight_max, low=0.0, low_open=True)
        for name in ("weight_bits", "bias_bits"):
            if getattr(self, name) is not None and not np.isfinite(self.weight_max):
                raise InputError(f"{name} is {getattr(self, name)} with an infinite weight_max; expected a finite weight_max")
        if self.delays != "none" and self.delay_resolution > max(self.max_delay, 1):
            raise InputError(f"delay_resolution is {self.delay_resolution} steps; expected at most max_delay, {self.max_delay}")

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.widths[0] // self.steps

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Channels, hidden neurons, outputs: what couplings connect."""
        return (self.channels, *self.widths[1:])

    @property
    def total_steps(self) -> int:
        """Steps that are simulated."""
        return self.steps + self.tail_steps

    @property
    def spiking_outputs(self) -> bool:
        """Whether the output neurons spike."""
        return self.readout == "spike-count"

    def held_leak(self, leak: float) -> float:
        """A leak as decay registers hold it: 1 - leak rounded, half to even, to a multiple of 2^-decay_bits."""
        if self.decay_bits is None:
            return float(leak)
        scale = 2.0**self.decay_bits
        return float(1.0 - np.rint((1.0 - leak) * scale) / scale)

    def parameters(self) -> dict[str, Parameter]:
        """weight_k (n_k, n_{k-1}), delay_k (n_k, n_{k-1}) or (n_{k-1},) in steps, bias_k (n_k,), k = 1..L.

        Then recurrent_weight_k and, where delays are synaptic, recurrent_delay_k, (n_k, n_k), or (n_k,) where they are axonal,
        k = 1..L-1.
        """
        limit, found = self.weight_max, {}
        widths, layers = self.layer_widths, len(self.widths) - 1

        def pair(names: tuple[str, str], to: int, sender: int, layer: int) -> None:
            found[names[0]] = Parameter((to, sender), low=-limit, high=limit, layer=layer, readout=layer == layers)
            if self.delays != "none":
                shape = (to, sender) if self.delays == "synaptic" else (sender,)
                found[names[1]] = Parameter(
                    shape,
                    unit="step",
                    low=0.0,
                    high=float(self.max_delay),
                    layer=layer,
                    readout=layer == layers,
                    uniform=(0.0, float(self.max_delay)),
                )

        for k in range(1, layers + 1):
            pair((f"weight_{k}", f"delay_{k}"), widths[k], widths[k - 1], k)
            found[f"bias_{k}"] = Parameter((widths[k],), low=-limit, high=limit, layer=k, readout=k == layers)
        for k in range(1, layers) if self.recurrent else ():
            pair((f"recurrent_weight_{k}", f"recurrent_delay_{k}"), widths[k], widths[k], k)
        return found


def _check_whole(name: str, value: int, *, low: int, high: float = np.inf) -> None:
    check_range(name, value, low=low, high=high)
    if int(value) != value:
        raise InputError(f"{name} is {value}; expected a whole number")
