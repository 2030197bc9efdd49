"""What is the same for every chip of a nonlinear resistive network, and the circuit as plain numbers.

::

    source --g_1--+-- node 1 --|A>-- g_2 --+-- node 2 --|A>-- ... --+-- output
                  |  diode                 |  diode                 |
                  |  bias current          |  bias current          |  bias current, nudging current

A layer's nodes are joined to those of the layer below by conductances, through amplifiers of gain A_k from layer 1 on.
With v_0 the sources, Kirchhoff's current law at node i of layer k is

    sum_j g_k[i, j] (v_k[i] - A_k v_{k-1}[j]) + R_{k+1} sum_m g_{k+1}[m, i] (A_{k+1} v_k[i] - v_{k+1}[m]) = I_k[i] + diode current

where R_k is what the amplifier takes from its input for each ampere that it gives: 1/A_k for a voltage-controlled voltage source
forward and a current-controlled current source backward (Kendall, Pantone, Manickavasagam, Bengio and Scellier,
arXiv:2006.01981, 2020), A_k for an ideal transformer, which neither makes nor burns power. A_1 = R_1 = 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array

AMPLIFIERS = ("vcvs-cccs", "transformer")
DIODES = ("ideal", "shockley")

BOLTZMANN_OVER_CHARGE = 1.380649e-23 / 1.602176634e-19
"""k/q in volts per kelvin, of the exact values of the SI (2019)."""


@dataclass(frozen=True, slots=True, eq=False)
class ResistiveCircuit:
    """A circuit and its sources: all that a solver needs, in SI units.

    Attributes
    ----------
    conductances : tuple of ndarray, each (n_k, n_{k-1}), k = 1..L
        In siemens, >= 0; n_0 counts the sources.
    currents : tuple of ndarray, each (n_k,)
        Bias currents into the nodes, in amperes.
    diodes : tuple of ndarray of int8, each (n_k,)
        +1: a diode from ground to the node keeps v >= 0; -1: one from the node to ground keeps v <= 0; 0: none.
    gains, returns : ndarray, each (L,)
        A_k and R_k of the module's equation, of the amplifiers before layer k; 1 for the first.
    sources : ndarray, shape (batch, n_0)
        In volts.
    saturation : float
        Saturation current of each diode in amperes, for solvers of real diodes.
    slope_volts : float
        Emission coefficient times thermal voltage, n k T / q, in volts, for solvers of real diodes.

    Raises
    ------
    InputError
        When shapes do not fit, a conductance is negative, or a node is joined to nothing.
    """

    conductances: tuple[Array, ...]
    currents: tuple[Array, ...]
    diodes: tuple[NDArray[np.int8], ...]
    gains: NDArray[np.float64]
    returns: NDArray[np.float64]
    sources: Array
    saturation: float = 1e-14
    slope_volts: float = BOLTZMANN_OVER_CHARGE * 300.0

    def __post_init__(self) -> None:
        layers = len(self.conductances)
        for name, parts in (
            ("currents", self.currents),
            ("diodes", self.diodes),
            ("gains", self.gains),
            ("returns", self.returns),
        ):
            if len(parts) != layers:
                raise InputError(f"{name} holds {len(parts)} layers; expected {layers}, as conductances does")
        below = check_array("sources", self.sources, shape=(None, None), unit="V").shape[1]
        for k, conductance in enumerate(self.conductances, start=1):
            width = np.shape(conductance)[0]
            check_array(f"conductance of layer {k}", conductance, shape=(width, below), low=0.0, unit="S")
            check_array(f"bias current of layer {k}", self.currents[k - 1], shape=(width,), unit="A")
            check_array(f"diodes of layer {k}", self.diodes[k - 1], shape=(width,), low=-1, high=1)
            below = width
        check_array("gains", self.gains, low=0.0)
        check_array("returns", self.returns, low=0.0)
        check_connected(self.node_conductances())

    def node_conductances(self) -> tuple[NDArray[np.float64], ...]:
        """What each node sees, sum_j g_k[i, j] + R_{k+1} A_{k+1} sum_m g_{k+1}[m, i], in siemens, each (n_k,)."""
        totals = [np.asarray(conductance.sum(axis=1, dtype=np.float64)) for conductance in self.conductances]
        for k in range(1, len(self.conductances)):
            loaded = self.gains[k] * self.returns[k] * self.conductances[k].sum(axis=0, dtype=np.float64)
            totals[k - 1] = totals[k - 1] + loaded
        return tuple(totals)


@dataclass(frozen=True, slots=True, eq=False)
class NudgingCurrents:
    """Currents siemens (volts - v) into the output nodes.

    Attributes
    ----------
    siemens : float
        beta as a conductance; negative away from the target.
    volts : ndarray, shape (batch, n_L)
        The target.
    """

    siemens: float
    volts: Array


@dataclass(frozen=True, slots=True, eq=False)
class SettledCircuit:
    """Where a circuit came to rest.

    Attributes
    ----------
    volts : tuple of ndarray, each (batch, n_k), k = 1..L
    residual : ndarray of float64, shape (batch,)
        Largest change of a node in the last update, in volts.
    steps : int
        Updates of the whole circuit that were made.
    """

    volts: tuple[Array, ...]
    residual: NDArray[np.float64]
    steps: int


def check_connected(node_conductances: tuple[Array, ...]) -> None:
    """See that every node is joined to something.

    Raises
    ------
    InputError
        Naming the first node whose conductances are all zero: its voltage would be undefined.
    """
    layers = len(node_conductances)
    for k, totals in enumerate(node_conductances, start=1):
        lowest = totals.min()
        if not lowest > 0.0:
            node = int(np.argmin(totals))
            what = "floating output" if k == layers else "disconnected node"
            raise InputError(f"{what}: the conductances of node {node} of layer {k} sum to {lowest:g} S; expected more than 0 S")


@dataclass(frozen=True, slots=True)
class ResistiveDescription:
    """Everything about the network that is the same for every chip made to it.

    A settling is charged with what resistors, real diodes and the devices of the biases burn at its last state, for
    `seconds_per_settle`, at the end of which converters sample the nodes and the sources are taken off; with static power of
    the amplifiers, one at each hidden node where `gain` is not 1 and one that inverts each input, until everything is
    converted; and with conversions, that of a nudge's targets included. What sources and nudging currents lose on their way
    to the network is not modelled.

    Attributes
    ----------
    widths : tuple of int
        Inputs, nodes per hidden layer, outputs. Each input drives two sources, x and -x.
    input_volts : float
        Source voltage of an input at 1.
    volts_per_output : float
        Voltage of a node at activity 1: targets and measured states are in this unit.
    siemens_unit : float
        Conductance of a weight of 1, in siemens. 10 uS is assumed: a resistance of 100 kOhm.
    gain : float
        A of the amplifiers between layers, >= 1; 1 for none.
    amplifier : str
        One of `AMPLIFIERS`.
    diode : str
        One of `DIODES`. The first half of each hidden layer (the larger half of an odd number) keeps v >= 0, the second v <= 0.
    saturation, emission, temperature : float
        Of real diodes: saturation current in amperes, emission coefficient, temperature in kelvin. Ideal ones do not use them.
    bias : bool
        Whether nodes have a bias current.
    bias_max : float
        Largest bias current, in units of `siemens_unit` times `volts_per_output`: each is a pair of conductances
        driven at that voltage.
    dtype : str
        ``"float32"`` or ``"float64"``: precision of the simulation.
    settle_steps : int
        Sweeps of `forward`.
    g_min, g_max : float
        Conductance range in siemens.
    levels, programming_noise, read_noise, device_spread
        See `devices.single_conductance`.
    input_bits, state_bits : int or None
        Resolution of the converters; None for ideal ones, which have no price.
    input_noise, state_noise : float
        Noise of the converters, referred to their input: of the inputs in units of an input of 1, of the states in units of
        activity.
    state_range : float
        Full scale of the state converters, in units of activity. Without amplifiers no node goes beyond the sources, which is
        `input_volts` / `volts_per_output`.
    seconds_per_settle : float
        Time a settling takes, in seconds, during which the resistors burn power. 1 us is assumed; RC transients of the circuit
        give a figure for one.
    seconds_per_conversion, seconds_per_write : float
        Duration of a conversion and of writing one row of devices. 100 ns each, assumed.
    """

    widths: tuple[int, ...]
    input_volts: float = 1.0
    volts_per_output: float = 0.1
    siemens_unit: float = 1e-5
    gain: float = 1.0
    amplifier: str = "vcvs-cccs"
    diode: str = "ideal"
    saturation: float = 1e-14
    emission: float = 1.0
    temperature: float = 300.0
    bias: bool = True
    bias_max: float = 2.5
    dtype: str = "float32"
    settle_steps: int = 6
    g_min: float = 0.0
    g_max: float = 25e-6
    levels: int | None = None
    programming_noise: float = 0.0
    read_noise: float = 0.0
    device_spread: float = 0.0
    input_bits: int | None = None
    state_bits: int | None = None
    input_noise: float = 0.0
    state_noise: float = 0.0
    state_range: float = 10.0
    seconds_per_settle: float = 1e-6
    seconds_per_conversion: float = 1e-7
    seconds_per_write: float = 1e-7

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise InputError(f"widths are {list(self.widths)}; expected the input and at least one layer")
        for width in self.widths:
            if not isinstance(width, (int, np.integer)):
                raise InputError(f"a width is {width!r}; expected a whole number of nodes")
            check_range("a width", width, low=1, unit="nodes")
        check_name("amplifier", self.amplifier, AMPLIFIERS)
        check_name("diode", self.diode, DIODES)
        check_name("dtype", self.dtype, ("float32", "float64"))
        check_range("gain", self.gain, low=1.0, high=1e3)
        if self.diode == "shockley" and self.read_noise != 0.0:
            raise InputError(f"read_noise is {self.read_noise:g}; expected 0 with diode 'shockley', whose solver draws none")
        check_range("settle_steps", self.settle_steps, low=1, unit="sweeps")
        for name, high, unit in (
            ("input_volts", 1e4, "V"),
            ("volts_per_output", 1e4, "V"),
            ("siemens_unit", 1e-2, "S"),
            ("saturation", 1.0, "A"),
            ("emission", 100.0, "1"),
            ("temperature", 1e3, "K"),
            ("bias_max", 1e6, "1"),
            ("state_range", 1e6, "units of activity"),
        ):
            check_range(name, getattr(self, name), low=0.0, low_open=True, high=high, unit=unit)
        for name in ("seconds_per_settle", "seconds_per_conversion", "seconds_per_write"):
            check_range(name, getattr(self, name), low=0.0, high=1.0, unit="s")

    @property
    def circuit_widths(self) -> tuple[int, ...]:
        """Sources, then nodes per layer: n_0 = 2 widths[0]."""
        return (2 * self.widths[0], *self.widths[1:])

    def layer_diodes(self) -> tuple[NDArray[np.int8], ...]:
        """Sign of the diode at each node, layer by layer; none at the outputs."""
        signs = []
        for k, width in enumerate(self.widths[1:], start=1):
            sign = np.where(np.arange(width) < (width + 1) // 2, 1, -1).astype(np.int8)
            signs.append(np.zeros(width, dtype=np.int8) if k == len(self.widths) - 1 else sign)
        return tuple(signs)

    def layer_gains(self) -> NDArray[np.float64]:
        """A_k of each layer: 1 for the first, which sources drive."""
        gains = np.full(len(self.widths) - 1, float(self.gain))
        gains[0] = 1.0
        return gains

    def layer_returns(self) -> NDArray[np.float64]:
        """R_k of each layer: see the module."""
        gains = self.layer_gains()
        return gains if self.amplifier == "transformer" else 1.0 / gains

    def energy_scales(self) -> NDArray[np.float64]:
        """Factor of each layer's co-content in the energy whose minimum is the steady state, 1 for the last layer.

        The energy is sum_k c_k E_k with E_k = 1/2 sum_ij g_k[i, j] (v_k[i] - A_k v_{k-1}[j])^2 - I_k^T v_k and
        c_{k-1} = c_k A_k/R_k: powers A^(2 (L - k)) for vcvs-cccs, 1 for transformers.
        """
        ratios = self.layer_gains() / self.layer_returns()
        return np.append(np.cumprod(ratios[:0:-1])[::-1], 1.0)

    @property
    def slope_volts(self) -> float:
        """Emission coefficient times thermal voltage, in volts."""
        return self.emission * BOLTZMANN_OVER_CHARGE * self.temperature

    def circuit(self, conductances: tuple[Array, ...], currents: tuple[Array, ...], sources: Array) -> ResistiveCircuit:
        """The circuit with these conductances (S), bias currents (A) and sources (V)."""
        return ResistiveCircuit(
            conductances,
            currents,
            self.layer_diodes(),
            self.layer_gains(),
            self.layer_returns(),
            sources,
            self.saturation,
            self.slope_volts,
        )
