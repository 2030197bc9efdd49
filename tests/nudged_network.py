"""Small relaxing networks in double precision, what the exact model says of them, and what tests of nudged phases share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import Batch, Update
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Array, Outer, Write
from inmaterio.simulators.hopfield import HopfieldNetwork

KEY = Key(0)

EXACT: Mapping[str, Any] = {"tolerance": 1e-14, "free_steps": 5000, "nudged_steps": 5000}
"""Hyperparameters with which every phase ends at its rest point."""


def network(seed: int = 0, widths: tuple[int, ...] = (12, 16, 5), gain: float = 0.4, **options: Any) -> HopfieldNetwork:
    """A network of drawn couplings and biases."""
    substrate = hopfield.build(widths, chip=Key(seed), **{"dtype": "float64", "schedule": "synchronous", **options})
    values = initial_values(substrate.parameters, key=Key(seed, ("init",)), gain=gain)
    rng = np.random.default_rng(seed)
    for name, value in values.items():
        if name.startswith("bias"):
            values[name] = rng.normal(scale=0.2, size=value.shape)
    write(substrate, values)
    return substrate


def lecun_network(seed: int, angle: float, **options: Any) -> HopfieldNetwork:
    """Three layers of 32, 32 and 10 nodes; each direction normal with variance 1 / from, the feedback turned to an angle.

    Of tanh and without biases unless asked otherwise. The same seed draws the same couplings, whatever the angle.
    """
    chosen = {"dtype": "float64", "wiring": "asymmetric", "activation": "tanh", "output_activation": "tanh", "damping": 0.5}
    substrate = hopfield.build((32, 32, 32, 10), chip=Key(seed), **{**chosen, "bias": False, **options})
    rng, turn = np.random.default_rng(seed), np.deg2rad(angle)
    values: dict[str, Array] = {}
    for name in sorted(name for name, parameter in substrate.parameters.items() if len(parameter.shape) == 2):
        shape = substrate.parameters[name].shape
        values[name] = rng.normal(size=shape) / np.sqrt(shape[1])
    for k in (2, 3):
        values[f"feedback_{k}"] = np.cos(turn) * values[f"weight_{k}"].T + np.sin(turn) * values[f"feedback_{k}"]
    write(substrate, values)
    return substrate


def signs_batch(substrate: HopfieldNetwork, size: int, seed: int) -> Batch:
    """Inputs and targets of random signs, so that what they drive through normal couplings is standard normal."""
    rng = np.random.default_rng(seed)
    inputs = rng.choice([-1.0, 1.0], (size, substrate.ports["input"].size))
    return Batch(inputs, rng.choice([-1.0, 1.0], (size, substrate.ports["output"].size)), np.arange(size))


def settled_rows(substrate: HopfieldNetwork, data: Batch, steps: int = 3000) -> Batch:
    """The samples whose free phase comes to rest: strongly asymmetric couplings make a few oscillate for ever."""
    with substrate.ledger.phase("evaluate"):
        settled = substrate.settle(data.inputs, samples=data.samples, key=KEY, steps=steps, tolerance=5e-14)
    rows = settled.residual < 1e-13
    return Batch(data.inputs[rows], data.targets[rows], data.samples[rows])


def write(substrate: HopfieldNetwork, values: Mapping[str, Array]) -> None:
    """Program these values."""
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(0, ("write",)))


def some_batch(substrate: HopfieldNetwork, size: int = 5, seed: int = 100) -> Batch:
    """Uniform inputs in [-1, 1] and targets in [0, 1]."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1.0, 1.0, (size, substrate.ports["input"].size))
    return Batch(inputs, rng.uniform(0.0, 1.0, (size, substrate.ports["output"].size)), np.arange(size))


def ask(rule: Any, substrate: HopfieldNetwork, data: Batch, key: Key = KEY) -> Update:
    """One update of a rule without state."""
    with substrate.ledger.phase("train"):
        update: Update = rule.update(rule.init(Key(0)), data, key)
    return update


def flat(gradient: Mapping[str, Any]) -> Array:
    """All parameters behind one another."""
    return np.concatenate([np.ravel(g.dense() if isinstance(g, Outer) else g) for _, g in sorted(gradient.items())])


def exact_gradient(substrate: HopfieldNetwork, data: Batch, loss: str = "mse") -> Array:
    """Implicit differentiation of the exact model."""
    return flat(substrate.oracle().loss_gradient(data.inputs, data.targets, loss))


def jacobians_and_errors(substrate: HopfieldNetwork, data: Batch) -> tuple[Array, Array]:
    """J (batch, nodes, nodes) at the free rest points and e = dC/ds (batch, nodes) of the squared error."""
    oracle = substrate.oracle()
    states = oracle.states(data.inputs)
    rows = range(len(data))
    jacobians = np.stack([oracle.jacobian(data.inputs[b], tuple(layer[b] for layer in states)) for b in rows])
    errors = np.zeros(jacobians.shape[:2])
    errors[:, -data.targets.shape[1] :] = states[-1] - data.targets
    return jacobians, errors


def solve(matrices: Array, vectors: Array) -> Array:
    """One linear system per row."""
    return np.asarray(np.linalg.solve(matrices, vectors[..., None])[..., 0])


def relative_error(found: Array, wanted: Array) -> float:
    """|found - wanted| / |wanted|."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def cosine(found: Array, wanted: Array) -> float:
    """Of all numbers taken as one vector."""
    return float(np.vdot(found, wanted) / np.linalg.norm(found) / np.linalg.norm(wanted))


def slope(strengths: Any, errors: Any) -> float:
    """Exponent of the power law fitted to errors."""
    return float(np.polyfit(np.log(strengths), np.log(errors), 1)[0])


def contraction(substrate: HopfieldNetwork, data: Batch, steps: tuple[int, int] = (15, 25)) -> float:
    """Ratio of successive residuals close to the free rest point."""
    with substrate.ledger.phase("evaluate"):
        settled = [substrate.settle(data.inputs, samples=data.samples, key=KEY, steps=number) for number in steps]
    first, last = (float(phase.residual.max()) for phase in settled)
    return float((last / first) ** (1.0 / (steps[1] - steps[0])))
