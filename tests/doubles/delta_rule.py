"""The delta rule on the last linear map: what is measured before it, times the measured error behind it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.simulators.capabilities import Array, Outer, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "ReadStates", "Program")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.1, "loss": "mse"}
PROGRAMS = False
State = Stateless


def build(*, substrate: Any, loss: str = "mse") -> Rule:
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"the delta rule cannot train this substrate: it {missing}")
    return Rule(init, partial(update, substrate), partial(predict, substrate))


def init(key: Key) -> State:
    return Stateless()


def update(substrate: Any, state: State, batch: Batch, key: Key) -> Update:
    with substrate.ledger.phase("free"):
        measured = substrate.states(batch.inputs, samples=batch.samples, key=key)
    before = measured[-2] if len(measured) > 1 else batch.inputs
    error = measured[-1] - batch.targets
    (name,) = [name for name, parameter in substrate.parameters.items() if parameter.readout and len(parameter.shape) == 2]
    loss = float(0.5 * np.sum(error**2, axis=1).mean())
    return Update(state, {name: Outer(error, before)}, Diagnostics(loss, measured[-1]))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    return substrate.forward(inputs, samples=samples, key=key)
