"""What is done with the digital twin of a substrate: its loss, its gradient, and what a pass through it costs.

A twin is a torch module whose named parameters are those of the substrate, with ``.`` for ``/``. It is called as
``twin(inputs)``, returns outputs (batch, outputs) that can be differentiated, and says in an attribute
``macs_per_sample`` how many multiply-accumulates that takes for one sample; ``macs_backward_per_sample`` may say what its
gradient takes. A twin whose work depends on what runs through it counts it instead: its attribute ``work`` then is the
`PassWork` of its last pass. Names in an attribute ``without_gradient`` are parameters on which its outputs depend by steps, so
that nothing can be learned of them from it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators.capabilities import LOSSES, Array, Parameter, Port
from inmaterio.simulators.host_work import PassWork, Work

if TYPE_CHECKING:
    import torch

WORD_BYTES = 4
"""Bytes of a word as counted: 32-bit floating point, whatever dtype the twin needs."""


def to_tensor(values: Array, dtype: "torch.dtype") -> "torch.Tensor":
    """A tensor with a copy of an array's values."""
    import torch

    return torch.from_numpy(np.array(values)).to(dtype)


def to_array(tensor: "torch.Tensor") -> Array:
    """A copy of a tensor's values."""
    return np.array(tensor.detach().numpy())


def batch_loss(loss: str, outputs: "torch.Tensor", targets: "torch.Tensor", output: Port) -> "torch.Tensor":
    """Mean over the batch of the loss per sample, differentiable.

    ``mse`` is C = 1/2 sum (s - y)^2. ``cross_entropy`` depends on what the output port carries: activities in [0, 1]
    are probabilities and C = -sum y ln s + (1 - y) ln(1 - s), with the logarithms held above -100 and what noise reads
    outside [0, 1] taken for the bound; unbounded outputs are logits and C = -sum y ln softmax(s).

    Parameters
    ----------
    loss : str
        One of `LOSSES`.
    outputs, targets : torch.Tensor, shape (batch, outputs)
    output : Port
        The substrate's output port.

    Raises
    ------
    InputError
        When the loss is unknown, or cross entropy is asked of outputs that are neither probabilities nor logits.
    """
    import torch

    check_name("loss", loss, LOSSES)
    if loss == "mse":
        return 0.5 * torch.sum((outputs - targets) ** 2) / len(outputs)
    if (output.low, output.high) == (0.0, 1.0):
        return torch.nn.functional.binary_cross_entropy(outputs.clamp(0.0, 1.0), targets, reduction="sum") / len(outputs)
    if output.low == -np.inf and output.high == np.inf:
        return -torch.sum(targets * torch.log_softmax(outputs, dim=1)) / len(outputs)
    raise InputError(
        f"cross_entropy needs outputs in [0, 1] or unbounded; these lie in [{output.low:g}, {output.high:g}]; expected loss 'mse'"
    )


def loss_and_gradient(loss: str, outputs: Array, targets: Array, output: Port) -> tuple[float, NDArray[np.float64]]:
    """Mean loss of measured outputs, and the gradient of each sample's own loss with respect to its outputs.

    Parameters
    ----------
    loss : str
        See `batch_loss`.
    outputs, targets : ndarray, shape (batch, outputs)
    output : Port

    Returns
    -------
    float, ndarray of shape (batch, outputs)
    """
    import torch

    tensor = to_tensor(outputs, torch.float64).requires_grad_()
    mean_loss = batch_loss(loss, tensor, to_tensor(targets, torch.float64), output)
    (gradient,) = torch.autograd.grad(mean_loss, tensor)
    return float(mean_loss.detach()), to_array(gradient) * len(tensor)


def macs_per_sample(module: "torch.nn.Module", *, backward: bool = False) -> int:
    """Multiply-accumulates one sample takes in a twin's forward pass: its attribute of that name.

    Backward it is the attribute ``macs_backward_per_sample``, and without one twice the forward pass: once for the gradient
    of the parameters and once for that of the states.

    Raises
    ------
    InputError
        When the twin does not say, or it is not a whole number >= 0: its cost would be reported as nothing.
    """
    macs: Any = getattr(module, "macs_per_sample", None)
    if isinstance(macs, bool) or not isinstance(macs, int) or macs < 0:
        raise InputError(f"macs_per_sample of the twin is {macs!r}; expected a whole number >= 0")
    return int(getattr(module, "macs_backward_per_sample", 2 * macs)) if backward else macs


def differentiable(module: "torch.nn.Module", parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Those of a substrate's parameters that a twin's gradient says something of."""
    without = getattr(module, "without_gradient", ())
    return {name: one for name, one in parameters.items() if name not in without}


def count_twin_pass(ledger: Ledger, role: str, module: "torch.nn.Module", batch: int, *, backward: bool) -> None:
    """Count one batched pass through a twin, after it was made.

    Of a twin that counts its own work, what the last pass took. Of others only the number of multiply-accumulates is known:
    `macs_per_sample` for every sample; forward every parameter is read once; backward it is read and its gradient stored.
    """
    if isinstance(done := getattr(module, "work", None), PassWork):
        count_work(ledger, role, "digital twin", done.backward if backward else done.forward)
        return
    passes = 2 if backward else 1
    size = sum(tensor.numel() for tensor in module.parameters())
    ledger.count(role, "digital twin", "mac_fp32", batch * macs_per_sample(module, backward=backward))
    ledger.count(role, "digital twin", "byte_sram", passes * WORD_BYTES * size)


def count_work(ledger: Ledger, role: str, component: str, work: Work) -> None:
    """Count work of 32-bit floating point in the phase that is open."""
    for event, amount in (("mac_fp32", work.macs), ("alu_fp32", work.operations), ("byte_sram", WORD_BYTES * work.words)):
        if amount:
            ledger.count(role, component, event, amount)


def twin_gradient(
    module: "torch.nn.Module",
    parameters: Mapping[str, Parameter],
    inputs: Array,
    targets: Array,
    loss: str,
    output: Port,
    states: tuple[Array, ...] | None = None,
) -> tuple[float, Array, dict[str, Array]]:
    """Loss, outputs and the gradient of the batch-mean loss, by reverse-mode differentiation of a twin.

    Parameters
    ----------
    module : torch.nn.Module
        The twin; its own ``grad`` fields are left alone.
    parameters : mapping of str to Parameter
        Which of its parameters; one that the outputs do not depend on has gradient zero.
    inputs, targets : ndarray, shape (batch, inputs) and (batch, outputs)
    loss : str
        See `batch_loss`.
    output : Port
    states : tuple of ndarray, optional
        Measured states about which a relaxing twin is linearised.

    Returns
    -------
    float, ndarray of shape (batch, outputs), dict of ndarray
        In the module's dtype.
    """
    import torch

    held = {name.replace(".", "/"): tensor for name, tensor in module.named_parameters()}
    wanted = [held[check_name("parameter of the twin", name, held)] for name in parameters]
    tensor = to_tensor(inputs, wanted[0].dtype)
    outputs = module(tensor) if states is None else module(tensor, states)
    mean_loss = batch_loss(loss, outputs, to_tensor(targets, wanted[0].dtype), output)
    gradients = torch.autograd.grad(mean_loss, wanted, allow_unused=True, materialize_grads=True)
    return float(mean_loss.detach()), to_array(outputs), dict(zip(parameters, map(to_array, gradients), strict=True))


@final
class DigitalOracle:
    """A digital network in float64, with its exact gradient.

    Parameters
    ----------
    module : torch.nn.Module
        In float64; taken as it predicts, in evaluation mode. Its values are not changed.
    parameters : mapping of str to Parameter
    output : Port
    """

    def __init__(self, module: "torch.nn.Module", parameters: Mapping[str, Parameter], output: Port) -> None:
        self._module = module.eval()
        self._parameters = dict(parameters)
        self._output = output

    def outputs(self, inputs: Array) -> Array:
        """Outputs (batch, outputs)."""
        import torch

        with torch.no_grad():
            return to_array(self._module(to_tensor(inputs, torch.float64)))

    def loss_gradient(self, inputs: Array, targets: Array, loss: str) -> dict[str, Array]:
        """Gradient of the batch-mean loss (see `batch_loss`) with respect to every parameter."""
        _, _, gradients = twin_gradient(self._module, self._parameters, inputs, targets, loss, self._output)
        return gradients
