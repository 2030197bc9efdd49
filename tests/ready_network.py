"""A small physical network that is written, calibrated and ready to be asked; and what several tests ask of any rule on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from doubles.random_medium import network

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import Batch, Update
from inmaterio.simulators.capabilities import Add, Array, Estimate, Outer, Write

KEY = Key(7, ("update",))


def ready(widths: tuple[int, ...], seed: int = 0, **options: Any) -> Any:
    """A network of random media with random maps, and random tuned values inside their ranges."""
    substrate = network(widths, seed, **options)
    substrate.attach(Ledger(), "substrate")
    rng = np.random.default_rng(seed + 100)
    values = {
        name: Write(0.5 * rng.uniform(-1, 1, one.shape) if one.initial is not None else 0.5 * rng.normal(size=one.shape))
        for name, one in substrate.parameters.items()
    }
    with substrate.ledger.phase("initialise"):
        substrate.program(values, key=Key(seed))
        substrate.calibrate(rng.uniform(-1, 1, (60, widths[0])), np.arange(60), Key(seed, ("calibrate",)))
    return substrate


def some_batch(substrate: Any, rows: int = 8, seed: int = 1) -> Batch:
    """Rows of uniform inputs and one-hot targets, their indices out of order."""
    rng = np.random.default_rng(seed)
    outputs = substrate.ports["output"].size
    inputs = rng.uniform(-1, 1, (rows, substrate.ports["input"].size))
    return Batch(inputs, np.eye(outputs)[rng.integers(0, outputs, rows)], 3 + rng.permutation(2 * rows)[:rows])


def ask(rule: Any, substrate: Any, batch: Batch, key: Key = KEY, state: Any = None) -> Update:
    """One update inside the run's phase."""
    with substrate.ledger.phase("train"):
        return rule.update(rule.init(Key(0)) if state is None else state, batch, key)  # type: ignore[no-any-return]


def dense(estimates: Mapping[str, Estimate]) -> dict[str, Array]:
    return {name: one.dense() if isinstance(one, Outer) else np.asarray(one) for name, one in estimates.items()}


def flat(estimates: Mapping[str, Estimate], scales: Mapping[str, float] | None = None) -> Array:
    """All elements behind one another, in order of the names, each multiplied by its scale."""
    arrays = dense(estimates)
    return np.concatenate([(1.0 if scales is None else scales[name]) * arrays[name].ravel() for name in sorted(arrays)])


def exact(substrate: Any, batch: Batch, loss: str) -> dict[str, Array]:
    return substrate.oracle().loss_gradient(batch.inputs, batch.targets, loss)  # type: ignore[no-any-return]


def device_passes(substrate: Any, phase: str) -> float:
    """Passes of all physics of the network in one phase."""
    return float(substrate.ledger.tallies.get((phase, "substrate", "device_pass"), 0.0))


def assert_order_of_rows_is_nothing(rule: Any, substrate: Any, batch: Batch) -> None:
    """The same rows in another order give the same estimates, noise included; the same key the same bits, another one others."""
    order = np.random.default_rng(0).permutation(len(batch))
    turned = Batch(batch.inputs[order], batch.targets[order], batch.samples[order])
    first, again, other = ask(rule, substrate, batch), ask(rule, substrate, batch), ask(rule, substrate, turned)
    np.testing.assert_array_equal(flat(first.estimates), flat(again.estimates))
    np.testing.assert_allclose(flat(other.estimates), flat(first.estimates), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.diagnostics.outputs, first.diagnostics.outputs[order], rtol=1e-10, atol=1e-12)
    assert np.abs(flat(ask(rule, substrate, batch, Key(8)).estimates) - flat(first.estimates)).max() > 1e-9


def descend(rule: Any, substrate: Any, batch: Batch, rate: float, updates: int) -> tuple[float, float]:
    """Losses before and after plain gradient descent along the estimates."""
    losses, state = [], rule.init(Key(0))
    for step in range(updates):
        found = ask(rule, substrate, batch, Key(5).at(step), state)
        state = found.state
        losses.append(found.diagnostics.loss)
        with substrate.ledger.phase("train"):
            substrate.program({name: Add(-rate * one) for name, one in dense(found.estimates).items()}, key=Key(step))
    return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))
