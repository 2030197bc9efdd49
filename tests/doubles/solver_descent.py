"""Natural-gradient descent of a digital model, its curvature inverted by another machine: a rule of two roles."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.simulators.capabilities import Array, Requirement, Samples, requires
from inmaterio.simulators.digital_twin import count_twin_pass, twin_gradient

REQUIRES: Mapping[str, Requirement] = {"model": requires("Forward", "Twin", "Program"), "solver": requires("LinearSolving")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.2, "loss": "mse", "damping": 1.0}
PROGRAMS = False
State = Stateless


def build(*, model: Any, solver: Any, loss: str = "mse", damping: float = 1.0) -> Rule:
    for role, substrate in (("model", model), ("solver", solver)):
        missing = REQUIRES[role].missing(substrate)
        if missing:
            raise InputError(f"solver descent cannot use this {role}: it {missing}")
    return Rule(init, partial(update, model, solver, loss, damping), partial(predict, model))


def init(key: Key) -> State:
    return Stateless()


def update(model: Any, solver: Any, loss: str, damping: float, state: State, batch: Batch, key: Key) -> Update:
    twin, output = model.twin(), model.ports["output"]
    with model.ledger.phase("twin"):
        value, outputs, gradient = twin_gradient(twin, model.parameters, batch.inputs, batch.targets, loss, output)
        count_twin_pass(model.ledger, "host", twin, len(batch), backward=True)
    estimates: dict[str, Array] = {}
    with model.ledger.phase("solve"):
        for name, g in gradient.items():
            # curvature of one layer's biases or rows, from the gradients themselves: enough for a double
            rows = np.atleast_2d(g.T) if g.ndim == 2 else g[None]
            curvature = rows.T @ rows / len(rows) + damping * np.eye(rows.shape[1])
            solved = [solver.solve(curvature, row, key=key.at(name, i)) for i, row in enumerate(rows)]
            estimates[name] = np.stack(solved).T if g.ndim == 2 else solved[0]
    return Update(state, estimates, Diagnostics(value, outputs))


def predict(model: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    return model.forward(inputs, samples=samples, key=key)
