"""How far a network is from having an energy: the antisymmetric part of its Jacobian, and the gradient of its size.

J is the Jacobian of a digital twin's vector field at measured states, S and A its symmetric and antisymmetric parts, n the number
of nodes. With vectors e of which the mean of e e^T is the identity, such as standard normals,

    two-jvp    L = mean( |J e|^2 - e^T J (J e) ) / n       two forward-mode products with each vector
    vjp        L = mean( |J^T e - J e|^2 ) / 2n            one forward-mode and one reverse-mode product

both are (|J|^2 - tr J^2) / n = 2 |A|^2 / n in the mean (Frobenius norms), and a diagonal added to J changes neither mean. The
second spreads less, and is zero for each vector where A is; the first asks for no product with J^T, which a system that only runs
forwards has no way to make.

The gradient with respect to parameters is taken at fixed states: how the states move with the parameters is left out.

Source: Laborieux and Zenke, ICLR (2024), arXiv 2309.02214, where e are 5 normals per sample.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Array, Samples
from inmaterio.simulators.digital_twin import WORD_BYTES, to_array, to_tensor

PRODUCTS: Mapping[str, int] = {"two-jvp": 5, "vjp": 4}
"""Forms, and how many products of J's size each takes per vector: two for L; for the gradient one per product of these for
the couplings, and in the first form one more with J^T, since its second product has the first for its vector."""


@dataclass(frozen=True, slots=True, eq=False)
class Asymmetry:
    """What was found at the states of a batch.

    Attributes
    ----------
    loss : float
        L, the mean over rows.
    gradient : mapping of str to ndarray
        dL/dtheta by the parameter's name in the substrate; parameters that J does not depend on are left out.
    symmetric, antisymmetric : float
        Frobenius norms of S and A, root mean square over rows: estimated from the same products, exact with `unit_vectors`.
        The diagonal of J belongs to S. An estimated square below zero, which the first form can give, counts as zero.
    """

    loss: float
    gradient: Mapping[str, Array]
    symmetric: float
    antisymmetric: float

    @property
    def symmetry(self) -> float:
        """|S| / (|S| + |A|): 1 where the field has an energy, 1/2 where couplings and diagonal are random; nan for J = 0."""
        total = self.symmetric + self.antisymmetric
        return self.symmetric / total if total > 0 else np.nan

    @property
    def ratio(self) -> float:
        """|A| / |J|; nan for J = 0."""
        total = np.hypot(self.symmetric, self.antisymmetric)
        return float(self.antisymmetric / total) if total > 0 else np.nan


def normal_vectors(key: Key, samples: Samples, draws: int, units: int) -> NDArray[np.float64]:
    """Standard normals, shape (draws, batch, units); those of a sample depend on the key and its place in the data set alone.

    Raises
    ------
    InputError
        When a number is out of range.
    """
    check_range("draws", draws, low=1)
    drawn = normals(key, samples, draws * units)
    return np.ascontiguousarray(drawn.reshape(len(samples), draws, units).transpose(1, 0, 2))


def unit_vectors(rows: int, units: int) -> NDArray[np.float64]:
    """sqrt(n) times each unit vector for each row, shape (units, rows, units): means over these are no estimates but exact."""
    return np.ascontiguousarray(np.broadcast_to(np.sqrt(units) * np.eye(units)[:, None, :], (units, rows, units)))


def jacobian_asymmetry(module: Any, inputs: Array, states: tuple[Array, ...], vectors: Array, *, form: str) -> Asymmetry:
    """L and its gradient at fixed states.

    Parameters
    ----------
    module : torch.nn.Module
        A twin with ``field(inputs, states)``: one tensor (batch, width) per layer, in which samples do not mix. It is run under
        `torch.func.vmap` and `torch.func.jvp`, so it is made of torch functions of the states. Its ``grad`` fields are left
        alone.
    inputs : ndarray, shape (batch, inputs)
    states : tuple of ndarray, each (batch, width)
        Every layer after the input, output last.
    vectors : ndarray, shape (draws, batch, units)
        e, the layers behind one another: `normal_vectors`, or `unit_vectors` for exact values.
    form : str
        One of `PRODUCTS`.

    Returns
    -------
    Asymmetry
        In the module's dtype.

    Raises
    ------
    InputError
        When the form is unknown, the module has no field, or the vectors do not fit the states.
    """
    import torch

    check_name("form", form, PRODUCTS)
    if not callable(getattr(module, "field", None)):
        raise InputError("the twin has no field(inputs, states); expected that of a relaxing layered network")
    widths = [state.shape[1] for state in states]
    units = sum(widths)
    check_array("vectors", vectors, shape=(None, len(inputs), units))
    held = {name.replace(".", "/"): tensor for name, tensor in module.named_parameters()}
    dtype = next(iter(held.values())).dtype
    driven = to_tensor(inputs, dtype)
    at = tuple(to_tensor(state, dtype) for state in states)
    drawn = torch.split(to_tensor(vectors, dtype), widths, dim=2)
    _prepare_forward_mode()
    squares = _two_jvp if form == "two-jvp" else _vjp
    with torch.enable_grad():
        each = squares(lambda *tensors: tuple(module.field(driven, tensors)), at, drawn)
        symmetric, antisymmetric = (torch.mean(square) for square in each)
        loss = 2.0 * antisymmetric / units
        # a field whose Jacobian holds no parameter, as that of a single layer, has no graph to go back through
        found = torch.autograd.grad(loss, list(held.values()), allow_unused=True) if loss.requires_grad else (None,) * len(held)
    gradient = {name: to_array(one) for name, one in zip(held, found, strict=True) if one is not None}
    s2, a2 = max(float(symmetric.detach()), 0.0), max(float(antisymmetric.detach()), 0.0)
    return Asymmetry(float(loss.detach()), gradient, float(np.sqrt(s2)), float(np.sqrt(a2)))


def count_asymmetry(ledger: Ledger, role: str, module: Any, found: Asymmetry, vectors: int, *, form: str) -> None:
    """Count what `jacobian_asymmetry` takes on a digital host.

    A product of J with one vector is the twin's attribute ``macs_per_product``, and without one a multiply-accumulate for each
    element of the parameters that J depends on, as in a network of dense couplings of one direction each; it is linear where the
    field is. Couplings are read for each of the products, all vectors together, and their gradient is stored.

    Parameters
    ----------
    ledger : Ledger
    role : str
    module : torch.nn.Module
    found : Asymmetry
    vectors : int
        Draws times rows.
    form : str
    """
    size = sum(one.size for one in found.gradient.values())
    product = int(getattr(module, "macs_per_product", size))
    ledger.count(role, "digital twin", "mac_fp32", PRODUCTS[form] * vectors * product)
    ledger.count(role, "digital twin", "byte_sram", (PRODUCTS[form] + 1) * WORD_BYTES * size)


@cache
def _prepare_forward_mode() -> None:
    """Have torch load what its forward mode needs, which it does once and with a function that it calls deprecated itself."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is", DeprecationWarning)
        torch.func.jvp(torch.clone, (torch.zeros(1),), (torch.zeros(1),))


Field = Callable[..., tuple[Any, ...]]


def _two_jvp(field: Field, at: tuple[Any, ...], drawn: tuple[Any, ...]) -> tuple[Any, Any]:
    """|S|^2 and |A|^2 by vector and row, from J e and J (J e): |J|^2 = |S|^2 + |A|^2, tr J^2 = |S|^2 - |A|^2."""
    from torch.func import jvp, vmap

    def products(*vector: Any) -> tuple[Any, Any]:
        once = jvp(field, at, vector)[1]
        twice = jvp(field, at, once)[1]
        return _dot(once, once), _dot(vector, twice)

    # over the draws alone: the field itself then runs once per product, not once per vector
    whole, trace = vmap(products)(*drawn)
    return (whole + trace) / 2.0, (whole - trace) / 2.0


def _vjp(field: Field, at: tuple[Any, ...], drawn: tuple[Any, ...]) -> tuple[Any, Any]:
    """|S|^2 and |A|^2 by vector and row, from (J^T e + J e) / 2 and (J^T e - J e) / 2."""
    from torch.func import jvp, vjp, vmap

    pull: Any = vjp(field, *at)[1]

    def products(*vector: Any) -> tuple[Any, Any]:
        along = jvp(field, at, vector)[1]
        back = pull(vector)
        plus = tuple(b + a for b, a in zip(back, along, strict=True))
        minus = tuple(b - a for b, a in zip(back, along, strict=True))
        return _dot(plus, plus) / 4.0, _dot(minus, minus) / 4.0

    symmetric, antisymmetric = vmap(products)(*drawn)
    return symmetric, antisymmetric


def _dot(left: tuple[Any, ...], right: tuple[Any, ...]) -> Any:
    """Inner product over all nodes, by row."""
    return sum((a * b).sum(dim=-1) for a, b in zip(left, right, strict=True))
