"""What a substrate can do for a rule, and the frozen records that pass between them.

A rule asks for capabilities and traits by name; an instance of a substrate lists what it has. Legality is decided by
those names alone. The protocols below serve type checkers and the conformance tests.

Everything that crosses between a rule and a substrate is an array, a number, a string or a frozen record of them, so
that any substrate can be reached over a wire. Calls are synchronous and batch-first. Nothing returned shares memory
with a substrate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name

if TYPE_CHECKING:
    from inmaterio.simulators.spiking_description import SpikingDescription

Array = NDArray[Any]
"""Real or complex numbers."""

Samples = NDArray[np.int64]
"""Index of each row of a batch in its data set: noise is drawn for the sample, not for its place in the batch."""

CAPABILITIES = (
    "Forward",  # outputs for inputs, one read each
    "ReadStates",  # every layer or node can be read, not only the output
    "ReadLayers",  # what enters and what leaves each known linear map can be read, down to a chosen depth
    "LocalGain",  # slope of each node's response at its operating point
    "InjectInput",  # a drive added to the input
    "InjectLabel",  # a label can be driven in beside the data
    "InjectNode",  # a known drive added at inner nodes
    "PerturbParameters",  # a temporary change of parameters
    "Relaxing",  # settles, with an optional nudge, from an optional start
    "ClampOutput",  # settles with the outputs held at given values
    "LocalContrast",  # dE/dtheta from measured states
    "Pullback",  # dF/dtheta contracted with a measured vector
    "Transpose",  # clocked layers whose couplings can be driven one at a time, forwards and backwards
    "TransposedSettling",  # settles with the antisymmetric part of its Jacobian reversed about the free state
    "Feedback",  # separate feedback couplings, parameters feedback_k
    "Adjoint",  # reciprocity or time reversal gives dL/dtheta
    "Twin",  # differentiable torch model from nominal data and requested values
    "Identification",  # the twin is fitted to measured pairs, and can be fitted again
    "Spiking",  # spikes in, spikes out
    "LinearSolving",  # equilibrates to the solution of a linear system
    "Program",  # parameters can be written
    "ReadBack",  # parameters can be read, noisily, at a cost
)
"""Names a substrate may list in `capabilities`."""

TRAITS = (
    "linear",
    "reciprocal",  # one device serves both directions of a coupling
    "symmetric",  # both directions of a coupling are asked to hold the same value, up to a known gain per layer
    "lossless",
    "time-reversible",
    "gradient-flow",  # the states descend an energy
    "holomorphic",
    "monotone",
    "mapped",  # every parameter belongs to a known linear map both ends of which are measured
)
"""Names a substrate may list in `traits`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one parameter is; never its values, which come back only through `ReadBack`.

    Attributes
    ----------
    shape : tuple of int
        A coupling is (to, from), as in ``torch.nn.Linear``.
    unit : str
        SI unit, or ``"1"``.
    low, high : float
        Range that can be written; values outside are clipped by the device.
    layer : int
        Depth of the layer it drives, 1 for the first.
    readout : bool
        Whether it drives the output layer: what a readout-only control still trains.
    accepts : tuple of str
        Kinds of request it takes, of ``"Write"``, ``"Add"`` and ``"Outer"``. A pulsed array may take outer products alone; it
        then begins with what it holds and can only be trained in place.
    digital : bool
        Whether the host holds it, as it holds the map behind a physical system; else devices do.
    initial : float or None
        Value it begins with everywhere; None where the initialisation draws one. Physical parameters that are neither
        couplings nor biases have one.
    partner : str
        Of a feedback coupling B: the name of the forward coupling W that it runs against; empty for all others.
    angle : float
        Of a feedback coupling, in degrees: it begins as cos(angle) W^T + sin(angle) D with D drawn as W is, so that at 90 it
        knows nothing of W and at 0 it is its transpose.
    uniform : tuple of float or None
        Limits between which each of its values begins, drawn uniformly; None where `initial` or the initialisation says.
    """

    shape: tuple[int, ...]
    unit: str = "1"
    low: float = -np.inf
    high: float = np.inf
    layer: int = 1
    readout: bool = False
    accepts: tuple[str, ...] = ("Write", "Add", "Outer")
    initial: float | None = None
    digital: bool = False
    partner: str = ""
    angle: float = 0.0
    uniform: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """Where data enters or leaves: size per sample, unit and the range it takes."""

    size: int
    unit: str
    low: float
    high: float


LOSSES = ("mse", "cross_entropy")
"""Losses a nudge can belong to: mse is C = 1/2 |s - y|^2 per sample, cross_entropy the sum of -y ln s - (1-y) ln(1-s)."""


@dataclass(frozen=True, slots=True, eq=False)
class Nudge:
    """A weak pull of the outputs down the gradient of a loss.

    Attributes
    ----------
    loss : str
        One of `LOSSES`.
    target : ndarray, shape (batch, outputs)
        In units of the output.
    beta : float or complex
        Strength; the total energy is F = E + beta C. Positive beta pulls towards the target.

    Raises
    ------
    InputError
        When the loss is unknown or beta is zero or not finite.
    """

    loss: str
    target: Array
    beta: float | complex

    def __post_init__(self) -> None:
        check_name("loss", self.loss, LOSSES)
        if not np.isfinite(self.beta) or self.beta == 0:
            raise InputError(f"beta is {self.beta}; expected a finite number other than 0")


@dataclass(frozen=True, slots=True, eq=False)
class Clamp:
    """Outputs held at given values, shape (batch, outputs), in units of the output."""

    target: Array


Start = Literal["rest", "last", "free"] | tuple[Array, ...]
"""Where a settling begins: ``"rest"`` all nodes at activity 0, ``"last"`` wherever the substrate is, ``"free"`` the held
copy of the last settling without nudge (sample-and-hold), or states driven in, one array (batch, width) per layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What is measured when a network has settled.

    Attributes
    ----------
    states : tuple of ndarray, each (batch, width)
        Measured state of every layer after the input, output last.
    residual : ndarray, shape (batch,)
        Largest change of any node in the last update, per sample, in units of activity. The simulator's own knowledge,
        not a measurement: for diagnostics and tables, never for an estimate.
    steps : int
        Updates of the whole network that were made.
    tolerance : float or None
        What the residual was asked to reach; None when a number of steps was asked for.
    record : tuple of ndarray, each (steps, batch, width)
        Measured trajectory when it was asked for; otherwise empty.
    """

    states: tuple[Array, ...]
    residual: NDArray[np.float64]
    steps: int
    tolerance: float | None = None
    record: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One known linear map y = W a + b as it was met in a pass: what enters it and what leaves it.

    Attributes
    ----------
    features : ndarray, shape (batch, fan-in)
        a: what was measured behind the physics of this layer, with whatever goes past the physics digitally behind it.
    outputs : ndarray, shape (batch, width)
        y, before any response.
    """

    features: Array
    outputs: Array


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """What an adjoint experiment gives.

    Attributes
    ----------
    parameters : mapping of str to estimate
        Gradient of the batch-mean loss with respect to each parameter.
    inputs : ndarray, shape (batch, inputs)
        Gradient of each sample's own loss with respect to its inputs, per unit of the input port.
    """

    parameters: Mapping[str, "Estimate"]
    inputs: Array


@dataclass(frozen=True, slots=True, eq=False)
class Spikes:
    """What a run of a spiking network shows, dense in time.

    Attributes
    ----------
    scores : ndarray, shape (batch, outputs)
        As `Forward` gives them.
    spikes : tuple of ndarray of uint8, each (batch, steps, width)
        Of every layer that spikes, from the first hidden one on, as they came over the link to the next layer: in the step in
        which they left, or as late as they were, without those that got lost. More than 1 where several came at once.
    made : tuple of ndarray of uint8, each (batch, steps, width)
        The same as the neurons made them: what resets them, and reaches their own layer. The same arrays where links err in
        nothing.
    membranes : tuple of ndarray, each (batch, steps, width)
        h of every layer after the input in each step, before any reset, output last; empty unless they were asked for.
    """

    scores: Array
    spikes: tuple[NDArray[np.uint8], ...]
    made: tuple[NDArray[np.uint8], ...]
    membranes: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Ask for these values."""

    values: Array


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Ask for the present values plus these."""

    values: Array


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """scale * mean over b of left[b] (x) right[b], unconjugated: as an estimate, or as a request to add it.

    Attributes
    ----------
    left : ndarray, shape (batch, to)
    right : ndarray, shape (batch, from)
    scale : float
    """

    left: Array
    right: Array
    scale: float = 1.0

    def dense(self) -> Array:
        """The (to, from) array."""
        # scaling the small factor spares a pass over the large result
        return np.asarray(((self.scale / len(self.left)) * self.left).T @ self.right)

    @property
    def macs(self) -> int:
        """Multiply-accumulates `dense` takes on a digital host."""
        return int(self.left.size * self.right.shape[1])


Estimate = Array | Outer
"""Estimated gradient of the batch-mean loss with respect to one parameter."""

Request = Write | Add | Outer


class Substrate(Protocol):
    """What every substrate has.

    `oracle()` is the exact model: called by tests and by experiments that compare gradients, never by a rule.
    """

    @property
    def capabilities(self) -> frozenset[str]: ...
    @property
    def traits(self) -> frozenset[str]: ...
    @property
    def parameters(self) -> Mapping[str, Parameter]: ...
    @property
    def ports(self) -> Mapping[str, Port]: ...
    @property
    def clock_s(self) -> float: ...
    @property
    def ledger(self) -> Ledger: ...

    def attach(self, ledger: Ledger, role: str) -> None:
        """Count events in this ledger, under this role, from now on."""

    def wait(self, seconds: float) -> None:
        """Let time pass: drift acts, static power is counted."""

    def snapshot(self) -> dict[str, Any]:
        """Hidden state and clock as arrays, numbers and strings: what a checkpoint keeps. The ledger is kept apart."""

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits."""

    def oracle(self) -> Any:
        """The exact model of this very chip, for tests and probes."""


class Forward(Protocol):
    def forward(self, inputs: Array, *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs), as measured."""


class ReadStates(Protocol):
    def states(self, inputs: Array, *, samples: Samples, key: Key) -> tuple[Array, ...]:
        """Every layer after the input, output last, as measured."""


class ReadLayers(Protocol):
    def layers(
        self, inputs: Array, *, samples: Samples, key: Key, labels: Array | None = None, depth: int | None = None
    ) -> tuple[Layer, ...]:
        """Every linear map as it was met, from the input on; the first `depth` of them when that is given, no deeper pass.

        `labels` (batch, outputs), in [-1, 1], are driven in beside the data; legal only with the capability ``InjectLabel``.
        Zero where they are not given.
        """


class InjectNode(Protocol):
    def inject(self, inputs: Array, offsets: tuple[Array, ...], *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs), as measured, with known offsets (batch, width) added to what leaves each map."""


class PerturbParameters(Protocol):
    def perturbed(self, inputs: Array, changes: Mapping[str, Array], *, samples: Samples, key: Key) -> Array:
        """Outputs (batch, outputs), as measured while the named parameters hold their values plus these changes."""


class Adjoint(Protocol):
    def adjoint(self, inputs: Array, gradient: Array, *, samples: Samples, key: Key) -> Backward:
        """dC/dtheta measured by driving the outputs: `gradient` (batch, outputs) is each sample's own dC/d(output).

        Makes a forward pass and an adjoint pass of the device per sample.
        """


class Identification(Protocol):
    def identify(self, *, key: Key) -> float:
        """Measure fresh pairs of drive and response, fit the twin to them, say how well it predicts pairs held out (R^2)."""


class Relaxing(Protocol):
    def settle(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: "Nudge | Clamp | None" = None,
        start: Start = "rest",
        steps: int | None = None,
        tolerance: float | None = None,
        record: bool = False,
        read: Literal["all", "outputs"] = "all",
    ) -> Settled:
        """Relax with the input clamped, for `steps` updates or until the residual is at most `tolerance`.

        A `Clamp` is legal only with the capability ``ClampOutput``. ``read="outputs"`` reads the last layer alone, which is
        then the only one in `Settled.states`, and holds no copy for later phases.
        """


class LocalContrast(Protocol):
    def local_contrast(self, inputs: Array, states: tuple[Array, ...]) -> Mapping[str, Estimate]:
        """Batch mean of dE/dtheta of each parameter, from measured states: products of what its two ends hold."""


class Pullback(Protocol):
    def pullback(self, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]) -> Mapping[str, Estimate]:
        """Batch mean of (dF/dtheta)^T v of each parameter, at measured states; v: measured vectors (batch, width), one per layer.

        F_k = a_k(s) - f_k^-1(s_k) is the vector field in activity coordinates, whose zero the network settles to: where a_k =
        W_k s_{k-1} + B_{k+1} s_{k+1} + b_k it is v_k (x) s_{k-1} for W_k, v_k (x) s_{k+1} for B_{k+1} and v_k for b_k.
        """


class TransposedSettling(Protocol):
    def settle_transposed(
        self,
        inputs: Array,
        *,
        samples: Samples,
        key: Key,
        nudge: Nudge,
        steps: int | None = None,
        tolerance: float | None = None,
    ) -> Settled:
        """Relax from the held free state s* with -(J - J^T)(s - s*) added to the drive of every node.

        J is the Jacobian in activity coordinates. The free state stays a rest point, and about it the network answers a
        nudge with J^-T where `settle` answers with J^-1.
        """


class Spiking(Protocol):
    def nominal(self) -> "SpikingDescription":
        """What the chip is made to, as its data sheet says: options, constants of its neurons; none of its own errors."""

    def run(self, inputs: Array, *, samples: Samples, key: Key, membranes: bool = False, on_chip: bool = False) -> Spikes:
        """Present each sample from rest and record the spikes of every layer; on request every membrane in every step.

        With `on_chip` membranes go to a learning engine beside the neurons and are not charged as reads.
        """

    def synapses(self, *, key: Key) -> Mapping[str, Array]:
        """What a learning engine beside the synapses finds in them: as `ReadBack` gives it, and not charged."""


class Transpose(Protocol):
    """Layers are numbered from 1, as their couplings are; a row of a batch is one sample."""

    def product(self, layer: int, states: Array, *, samples: Samples, key: Key) -> Array:
        """W_k s + b_k (batch, n_k), as measured, for states (batch, n_{k-1}) driven in."""

    def transposed_product(self, layer: int, vectors: Array, *, samples: Samples, key: Key) -> Array:
        """W_k^T v (batch, n_{k-1}), as measured, for vectors (batch, n_k) driven in; feedback_k v where there is one."""

    def respond(self, layer: int, drive: Array) -> Array:
        """f_k(a) (batch, n_k): what the nodes of this layer make of a drive."""


class Program(Protocol):
    def program(self, requests: Mapping[str, Request], *, key: Key) -> None:
        """Send requests through the devices, which decide what really happens."""


class ReadBack(Protocol):
    def read_back(self, *, key: Key) -> Mapping[str, Array]:
        """Measured values of every parameter, noisy and charged."""


class LinearSolving(Protocol):
    def solve(self, matrix: Array, vector: Array, *, key: Key) -> Array:
        """x (n,) with matrix (n, n) x = vector (n,), as measured; the matrix is symmetric and positive definite."""


class Twin(Protocol):
    def twin(self) -> Any:
        """A ``torch.nn.Module`` built from nominal data and requested values; it never sees the chip's seed.

        Its named parameters are those of the substrate with ``.`` for ``/``. It is called as ``twin(inputs)`` or, for a
        relaxing substrate, ``twin(inputs, states)`` with measured states about which it is linearised, and returns
        outputs (batch, outputs) that can be differentiated. The twin of a relaxing layered network also has
        ``field(inputs, states)``: one tensor (batch, width) per layer of a_k(s) - s_k, the vector field in activity coordinates
        with the response left out, differentiable in states and parameters. One whose Jacobian can be solved also has
        ``slopes(inputs, states)``: one tensor (batch, width) per layer of f_k', D in J = d(field)/ds + 1 - D^-1.
        """


PROTOCOLS: Mapping[str, type] = {
    "Forward": Forward,
    "ReadStates": ReadStates,
    "ReadLayers": ReadLayers,
    "InjectNode": InjectNode,
    "PerturbParameters": PerturbParameters,
    "Adjoint": Adjoint,
    "Identification": Identification,
    "Relaxing": Relaxing,
    "LocalContrast": LocalContrast,
    "Pullback": Pullback,
    "TransposedSettling": TransposedSettling,
    "Transpose": Transpose,
    "Spiking": Spiking,
    "LinearSolving": LinearSolving,
    "Program": Program,
    "ReadBack": ReadBack,
    "Twin": Twin,
}
"""The protocol of each capability whose calls are fixed so far."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a rule needs of the substrate in one role."""

    capabilities: frozenset[str] = field(default_factory=frozenset)
    traits: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for capability in self.capabilities:
            check_name("capability", capability, CAPABILITIES)
        for trait in self.traits:
            check_name("trait", trait, TRAITS)

    def missing(self, substrate: Substrate) -> str:
        """Empty when the substrate serves; otherwise what is missing, in words."""
        capabilities = sorted(self.capabilities - substrate.capabilities)
        traits = sorted(self.traits - substrate.traits)
        parts = []
        if capabilities:
            parts.append(f"capability {', '.join(capabilities)}")
        if traits:
            parts.append(f"trait {', '.join(traits)}")
        return "lacks " + " and ".join(parts) if parts else ""


def requires(*names: str) -> Requirement:
    """A `Requirement` from names of capabilities and traits together."""
    for name in names:
        check_name("capability or trait", name, (*CAPABILITIES, *TRAITS))
    return Requirement(
        frozenset(name for name in names if name in CAPABILITIES), frozenset(name for name in names if name in TRAITS)
    )
