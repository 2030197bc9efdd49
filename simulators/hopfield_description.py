"""What is the same for every chip of a layered Hopfield network: sizes, wiring, devices, converters, times."""

from dataclasses import dataclass

import numpy as np

from inmaterio.devices.conductance import ConductancePair
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.activations import ACTIVATIONS, Activation
from inmaterio.simulators.relaxation import EVEN_ODD, SYNCHRONOUS

WIRINGS = ("shared", "separate", "asymmetric")
SCHEDULES = {"synchronous": SYNCHRONOUS, "even-odd": EVEN_ODD}


@dataclass(frozen=True, slots=True)
class HopfieldDescription:
    """Everything about the network that is the same for every chip made to it.

    Attributes
    ----------
    widths : tuple of int
        Nodes per layer, input first, at least one layer after it.
    activation, output_activation : str
        Names in `activations.ACTIVATIONS`.
    feedback_gain : float
        gamma above, in (0, 1]; 1 for the symmetric network.
    wiring : str
        ``"shared"``: one reciprocal device per coupling serves both directions. ``"separate"``: feedback has arrays of
        its own, asked to hold the same values, with errors of their own. ``"asymmetric"``: feedback is a parameter of its
        own, ``feedback_k`` of shape (n_{k-1}, n_k) for k = 2..L, on arrays of its own.
    feedback_angle : float
        Degrees between a feedback coupling and its partner's transpose when an asymmetric network is initialised: 90 knows
        nothing of it, 0 is the symmetric network.
    schedule : str
        ``"even-odd"``: odd layers, then even ones, each step an exact descent of the energy, as an asynchronous physical
        relaxation is; or ``"synchronous"``: all nodes at once, which strong weights can make oscillate between two
        states. In a network without couplings inside a layer one even/odd update makes the progress of two synchronous
        ones.
    damping : float
        In [0, 1): what a node keeps of its state at an update, s <- (1 - damping) f(a) + damping s. Strongly asymmetric
        couplings can oscillate for ever without it.
    bias : bool
        Whether nodes have a bias device.
    dtype : str
        ``"float32"`` or ``"float64"``: precision of the simulation.
    settle_steps : int
        Updates of `forward`.
    weight_max : float
        Weight at full conductance, in units of activity per activity.
    g_min, g_max : float
        Conductance range in siemens.
    levels, programming_noise, read_noise, device_spread, soft_bounds
        See `ConductancePair`.
        Read noise is the same for every device, whatever it holds, and is drawn for each direction of a shared one.
    read_noise_per_step : bool
        Draw read noise anew at each update instead of once per sample, array and settling.
    input_bits, state_bits : int or None
        Resolution of the converters; None for ideal ones, which have no price.
    input_noise, state_noise : float
        Noise of the converters, referred to their input, in units of activity.
    state_range : float
        Full scale of the state converters of unbounded nodes, in units of activity.
    volts_per_activity : float
        Drive in volts of a node at activity 1. 0.2 V, an assumed read voltage common for resistive memory.
    seconds_per_step, seconds_per_conversion, seconds_per_write : float
        Duration of a node's update, of a conversion, and of writing one row of devices. 100 ns each, assumed: 10 MS/s
        converters and sub-microsecond amplifiers and pulses. Odd and even layers take turns, so that an even/odd update
        of the network lasts two of a node's: see `seconds_per_update`.
    """

    widths: tuple[int, ...]
    activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    feedback_gain: float = 1.0
    wiring: str = "shared"
    feedback_angle: float = 90.0
    schedule: str = "even-odd"
    damping: float = 0.0
    bias: bool = True
    dtype: str = "float32"
    settle_steps: int = 40
    weight_max: float = 4.0
    g_min: float = 0.0
    g_max: float = 25e-6
    levels: int | None = None
    programming_noise: float = 0.0
    read_noise: float = 0.0
    device_spread: float = 0.0
    soft_bounds: bool = False
    read_noise_per_step: bool = False
    input_bits: int | None = None
    state_bits: int | None = None
    input_noise: float = 0.0
    state_noise: float = 0.0
    state_range: float = 4.0
    volts_per_activity: float = 0.2
    seconds_per_step: float = 1e-7
    seconds_per_conversion: float = 1e-7
    seconds_per_write: float = 1e-7

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise InputError(f"widths are {list(self.widths)}; expected the input and at least one layer")
        for width in self.widths:
            if not isinstance(width, (int, np.integer)):
                raise InputError(f"a width is {width!r}; expected a whole number of nodes")
            check_range("a width", width, low=1, unit="nodes")
        check_name("activation", self.activation, ACTIVATIONS)
        check_name("output activation", self.output_activation, ACTIVATIONS)
        check_range("feedback_gain", self.feedback_gain, low=0.0, high=1.0, low_open=True)
        check_name("wiring", self.wiring, WIRINGS)
        check_range("feedback_angle", self.feedback_angle, low=0.0, high=180.0, unit="degrees")
        check_name("schedule", self.schedule, SCHEDULES)
        check_range("damping", self.damping, low=0.0, high=1.0, high_open=True)
        check_name("dtype", self.dtype, ("float32", "float64"))
        check_range("settle_steps", self.settle_steps, low=1, unit="updates")
        check_range("state_range", self.state_range, low=0.0, low_open=True)
        check_range("volts_per_activity", self.volts_per_activity, low=0.0, high=2.0, low_open=True, unit="V")
        for name in ("seconds_per_step", "seconds_per_conversion", "seconds_per_write"):
            check_range(name, getattr(self, name), low=0.0, high=1.0, unit="s")

    @property
    def pair(self) -> ConductancePair:
        """The devices of every array."""
        return ConductancePair(
            g_min=self.g_min,
            g_max=self.g_max,
            weight_max=self.weight_max,
            levels=self.levels,
            programming_noise=self.programming_noise,
            read_noise=self.read_noise,
            device_spread=self.device_spread,
            soft_bounds=self.soft_bounds,
        )

    @property
    def asymmetric(self) -> bool:
        """Whether feedback couplings are parameters of their own."""
        return self.wiring == "asymmetric"

    @property
    def holomorphic(self) -> bool:
        """Whether states are analytic functions of what drives them, up to noise that is added to them.

        All responses are analytic, and nothing depends on a modulus or rounds: neither converters of the states nor read
        noise, which grows with the activity of a line.
        """
        analytic = all(activation.analytic for activation in self.layer_activations())
        return analytic and self.state_bits is None and self.read_noise == 0.0

    @property
    def seconds_per_update(self) -> float:
        """Duration of one update of the whole network, in seconds."""
        return self.seconds_per_step * (2.0 if self.schedule == "even-odd" else 1.0)

    def layer_activations(self) -> tuple[Activation, ...]:
        """Response of each layer after the input."""
        hidden = ACTIVATIONS[self.activation]
        return (*(hidden for _ in self.widths[1:-1]), ACTIVATIONS[self.output_activation])
