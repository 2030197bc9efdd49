"""What digital networks whose layers are driven one at a time have in common: all layers at once, and their exact model."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inmaterio.simulators.capabilities import Array, Parameter, Port
from inmaterio.simulators.digital_twin import DigitalOracle, to_array, to_tensor

if TYPE_CHECKING:
    import torch


def layer_states(module: "torch.nn.Module", inputs: Array, dtype: "torch.dtype") -> tuple[Array, ...]:
    """Every layer after the input, output last, each (batch, nodes), as a module's ``states`` gives them."""
    import torch

    layered: Any = module
    with torch.no_grad():
        return tuple(to_array(state) for state in layered.states(to_tensor(inputs, dtype)))


def forward_oracle(module: "torch.nn.Module", parameters: Mapping[str, Parameter], output: Port) -> DigitalOracle:
    """The same network in float64, without separate feedback: the loss does not depend on it."""
    forward = {name: one for name, one in parameters.items() if not one.partner}
    return DigitalOracle(copy.deepcopy(module).double(), forward, output)
