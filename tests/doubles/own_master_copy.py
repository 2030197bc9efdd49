"""A rule that keeps a torch master copy of its own in its state and writes by itself, as delay learning will."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.simulators.capabilities import Array, Requirement, Samples, Write, requires
from inmaterio.simulators.digital_twin import twin_gradient

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "Twin", "Program", "ReadBack")}
DEFAULTS: Mapping[str, Any] = {"rates": 0.1, "loss": "mse", "rate": 0.1, "momentum": 0.5}
PROGRAMS = True


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Master copy and momentum of every parameter; empty before the first update."""

    master: Mapping[str, Array]
    momentum: Mapping[str, Array]


def build(*, substrate: Any, loss: str = "mse", rate: float = 0.1, momentum: float = 0.5) -> Rule:
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"this rule cannot train this substrate: it {missing}")
    return Rule(init, partial(update, substrate, loss, rate, momentum), partial(predict, substrate))


def init(key: Key) -> State:
    return State({}, {})


def update(substrate: Any, loss: str, rate: float, momentum: float, state: State, batch: Batch, key: Key) -> Update:
    import torch

    with substrate.ledger.phase("verify"):
        held = state.master or substrate.read_back(key=key)
    with substrate.ledger.phase("twin"):
        value, outputs, gradient = twin_gradient(
            substrate.twin(), substrate.parameters, batch.inputs, batch.targets, loss, substrate.ports["output"]
        )
    tensors = {name: torch.tensor(np.array(values)) for name, values in held.items()}
    for name, tensor in tensors.items():
        tensor.grad = torch.as_tensor(np.asarray(gradient[name]), dtype=tensor.dtype)
    optimiser = torch.optim.SGD(list(tensors.values()), lr=rate, momentum=momentum)
    for name, velocity in state.momentum.items():
        optimiser.state[tensors[name]]["momentum_buffer"] = torch.tensor(np.array(velocity))
    optimiser.step()
    moved = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    velocity = {name: optimiser.state[tensor]["momentum_buffer"].numpy().copy() for name, tensor in tensors.items()}
    with substrate.ledger.phase("update"):
        substrate.program({name: Write(values) for name, values in moved.items()}, key=key.at("program"))
    return Update(State(moved, velocity), {}, Diagnostics(value, outputs))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    return substrate.forward(inputs, samples=samples, key=key)
