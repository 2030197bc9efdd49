"""From estimated gradients to requests: `torch.optim` on a copy in the host, or changes added in place.

Nothing here is an optimiser of its own. What the host computes is counted under role ``"host"``, component
``"host optimiser"``, in the phase that is open (the caller opens ``update``).
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Add, Array, Estimate, Outer, Parameter, Request, Write

if TYPE_CHECKING:
    import torch


class Arithmetic(NamedTuple):
    """What one step of an optimiser takes, per element of a parameter.

    Attributes
    ----------
    torch_class : str
        Its name in `torch.optim`.
    macs, operations : int
        Multiply-accumulates, and other floating-point operations.
    kept : tuple of str
        What torch keeps from step to step, one word each, by torch's own names; a count of steps aside.
    """

    torch_class: str
    macs: int
    operations: int
    kept: tuple[str, ...]


ARITHMETIC: Mapping[str, Arithmetic] = {
    "sgd": Arithmetic("SGD", 1, 0, ()),  # p -= lr g
    # m, v and p are one each; (1 - b1) g, (1 - b2) g g; square root, its scale, + eps, quotient
    "adam": Arithmetic("Adam", 3, 7, ("exp_avg", "exp_avg_sq")),
    "adamw": Arithmetic("AdamW", 3, 7, ("exp_avg", "exp_avg_sq")),
    # v and p; (1 - a) g g; square root, + eps, quotient
    "rmsprop": Arithmetic("RMSprop", 2, 5, ("square_avg",)),
    # sum and p; square root, + eps, quotient
    "adagrad": Arithmetic("Adagrad", 2, 3, ("sum",)),
}
"""Optimisers of torch whose arithmetic is counted.

Weight decay adds one multiply-accumulate per element, momentum one and a word of state.
"""

WORD_BYTES = 4
"""Bytes of a word as counted: the host works in 32-bit floating point; float64 is for tests."""

DTYPES = ("float32", "float64")


@final
class Diverged(InputError):
    """An estimate, or a value after the step, is not a finite number: the learning rate is too large."""


class Optimiser(Protocol):
    """Turns estimates into requests for `program`."""

    def step(self, estimates: Mapping[str, Estimate], rate_factor: float | Mapping[str, float] = 1.0) -> dict[str, Request]:
        """Requests for the parameters that have an estimate, and only for those.

        `rate_factor` multiplies every rate, or that of each parameter.
        """

    def state(self) -> dict[str, Array]:
        """All that the next step depends on, as copies."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, to the same bits."""


def check_estimate(name: str, estimate: Estimate, parameter: Parameter) -> None:
    """See that an estimate fits its parameter.

    Raises
    ------
    InputError
        When a shape differs. `Diverged` when a value is not finite.
    """
    if isinstance(estimate, Outer):
        left, right = np.asarray(estimate.left), np.asarray(estimate.right)
        if left.ndim != 2 or left.shape[:1] + left.shape[1:] + right.shape[1:] != (len(right), *parameter.shape):
            raise InputError(
                f"factors of the estimate of {name} have shapes {left.shape} and {right.shape}; "
                f"expected (batch, to) and (batch, from) for {tuple(parameter.shape)}"
            )
        check_range(f"batch in the estimate of {name}", len(left), low=1)
        finite = bool(np.isfinite(left).all() and np.isfinite(right).all() and np.isfinite(estimate.scale))
    else:
        if np.shape(estimate) != tuple(parameter.shape):
            raise InputError(f"estimate of {name} has shape {np.shape(estimate)}; expected {tuple(parameter.shape)}")
        finite = bool(np.isfinite(estimate).all())
    if not finite:
        raise Diverged(f"estimate of {name} is not finite everywhere; expected finite numbers; lower the learning rate")


def check_rates(rates: Mapping[str, float], parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Rates as plain numbers.

    Raises
    ------
    InputError
        When a parameter is unknown, or a rate is negative or not finite.
    """
    return {
        check_name("parameter", name, parameters): float(check_range(f"rate of {name}", rate, low=0.0, high_open=True))
        for name, rate in rates.items()
    }


def _factors(rate_factor: float | Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """What multiplies the rate of each parameter."""
    found = dict(rate_factor) if isinstance(rate_factor, Mapping) else dict.fromkeys(names, rate_factor)
    for name in names:
        check_range("rate_factor", found[check_name("rate factor of", name, found)], low=0.0, high_open=True)
    return found


@final
class MasterCopy:
    """An optimiser of torch on float copies of the parameters, kept in the host; each step asks to write them.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Shapes and ranges.
    initial : mapping of str to ndarray
        First values of every parameter that has a rate; clipped to its range.
    rates : mapping of str to float
        Learning rate per parameter; a parameter without one is never changed.
    ledger : Ledger
        Where the host's work is counted.
    optimiser : str
        One of `ARITHMETIC`; its other constants are torch's defaults.
    momentum : float
        For ``sgd`` and ``rmsprop``; in [0, 1).
    weight_decay : float
        As torch's, >= 0.
    undecayed : collection of str
        Parameters that have none.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    InputError
        When a name is unknown, values do not fit, or a number is out of range.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        initial: Mapping[str, Array],
        *,
        rates: Mapping[str, float],
        ledger: Ledger,
        optimiser: str = "sgd",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        undecayed: Collection[str] = (),
        dtype: str = "float32",
    ) -> None:
        import torch

        check_name("optimiser", optimiser, ARITHMETIC)
        check_name("dtype", dtype, DTYPES)
        check_range("momentum", momentum, low=0.0, high=1.0, high_open=True)
        check_range("weight_decay", weight_decay, low=0.0, high_open=True)
        if momentum and optimiser not in ("sgd", "rmsprop"):
            raise InputError(f"momentum is {momentum:g} for optimiser {optimiser!r}; expected 0, or optimiser 'sgd' or 'rmsprop'")
        self._parameters = dict(parameters)
        self._rates = check_rates(rates, parameters)
        if not self._rates:
            raise InputError("no parameter has a learning rate; expected a rate for at least one")
        self._ledger = ledger
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._master: dict[str, torch.nn.Parameter] = {}
        for name in self._rates:
            values = check_array(name, initial[check_name("initial value", name, initial)], shape=parameters[name].shape)
            clipped = np.clip(values, parameters[name].low, parameters[name].high)
            self._master[name] = torch.nn.Parameter(torch.from_numpy(np.array(clipped)).to(self._dtype))
        arithmetic = ARITHMETIC[optimiser]
        options: dict[str, Any] = {"weight_decay": weight_decay, **({"momentum": momentum} if momentum else {})}
        self._decayed = {name for name in self._rates if weight_decay and name not in undecayed}
        groups = [
            {"params": [tensor], "lr": self._rates[name], **({} if name in self._decayed else {"weight_decay": 0.0})}
            for name, tensor in self._master.items()
        ]
        self._optimiser: torch.optim.Optimizer = getattr(torch.optim, arithmetic.torch_class)(groups, **options)
        self._macs = arithmetic.macs + bool(momentum)
        self._operations = arithmetic.operations
        self._kept = arithmetic.kept + (("momentum_buffer",) if momentum else ())
        # torch counts the steps of every optimiser but SGD, per parameter
        self._entries = {*self._kept, *(() if optimiser == "sgd" else ("step",))}

    def step(self, estimates: Mapping[str, Estimate], rate_factor: float | Mapping[str, float] = 1.0) -> dict[str, Request]:
        """One step of the optimiser; a `Write` of the new values for every parameter with an estimate.

        Values are clipped to the parameter's range after the step, in the master copy too, so that it cannot wander
        where no device can follow. A parameter without an estimate is left alone, its momentum and moments too.

        Counted per parameter of n elements: `count_factors` and ``Outer.macs`` when it comes as an outer product; n times
        the arithmetic of the optimiser (`ARITHMETIC`); bytes of on-chip memory: the gradient read, the value read and
        stored, each word of state read and stored.

        Raises
        ------
        InputError
            When an estimate does not fit, or its parameter has no rate. `Diverged` when an estimate or a new value is
            not finite. Nothing is changed unless it is a new value.
        """
        import torch

        factors = _factors(rate_factor, self._rates)
        for name, estimate in estimates.items():
            check_name("parameter with a rate", name, self._master)
            check_estimate(name, estimate, self._parameters[name])
        for group, (name, tensor) in zip(self._optimiser.param_groups, self._master.items(), strict=True):
            group["lr"] = self._rates[name] * factors[name]
            tensor.grad = None  # torch leaves parameters without a gradient alone
            if name in estimates:
                estimate = estimates[name]
                dense = estimate.dense() if isinstance(estimate, Outer) else estimate
                tensor.grad = torch.from_numpy(np.array(dense)).to(self._dtype)
                self._count(name, estimate, tensor)
        self._optimiser.step()
        writes: dict[str, Request] = {}
        with torch.no_grad():
            for name in estimates:
                tensor, parameter = self._master[name], self._parameters[name]
                if not bool(torch.isfinite(tensor).all()):
                    raise Diverged(f"{name} is not finite after the step; expected finite numbers; lower the learning rate")
                if parameter.low > -np.inf or parameter.high < np.inf:
                    tensor.clamp_(parameter.low, parameter.high)
                writes[name] = Write(tensor.detach().numpy().copy())
        return writes

    def values(self) -> dict[str, Array]:
        """Copies of the master values."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self._master.items()}

    def state(self) -> dict[str, Array]:
        """Master values under ``master:NAME``, the optimiser's own tensors under ``KEY:NAME``."""
        kept = {f"master:{name}": values for name, values in self.values().items()}
        for name, tensor in self._master.items():
            for key, value in self._optimiser.state[tensor].items() if tensor in self._optimiser.state else ():
                if value is not None:
                    kept[f"{key}:{name}"] = value.detach().numpy().copy()
        return kept

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, to the same bits.

        Raises
        ------
        InputError
            When an entry is missing, belongs to no parameter or does not fit; nothing is changed then.
        """
        import torch

        moments: dict[int, dict[str, torch.Tensor]] = {}
        places = {name: place for place, name in enumerate(self._master)}
        for name in self._master:
            check_name("entry of the optimiser's state", f"master:{name}", state)
        for entry, values in state.items():
            key, _, name = entry.partition(":")
            check_name("parameter in the optimiser's state", name, places)
            check_name("entry of this optimiser's state", key, ("master", *self._entries))
            shape = () if key == "step" else self._parameters[name].shape
            checked = np.array(check_array(entry, values, shape=shape))
            if key != "master":
                moments.setdefault(places[name], {})[key] = torch.from_numpy(checked)
        wanted = ", ".join(sorted(self._entries))
        for name, place in places.items():
            found = moments.get(place, {})
            if found and found.keys() != self._entries:
                raise InputError(f"optimiser's state of {name} holds {', '.join(sorted(found))}; expected {wanted}")
        with torch.no_grad():
            for name, tensor in self._master.items():
                tensor.copy_(torch.from_numpy(np.array(state[f"master:{name}"])))
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})

    def _count(self, name: str, estimate: Estimate, tensor: "torch.Tensor") -> None:
        size = tensor.numel()
        macs = (self._macs + (name in self._decayed)) * size
        if isinstance(estimate, Outer):
            macs += estimate.macs
            count_factors(self._ledger, estimate)
        self._ledger.count("host", "host optimiser", "mac_fp32", macs)
        self._ledger.count("host", "host optimiser", "alu_fp32", self._operations * size)
        self._ledger.count("host", "host optimiser", "byte_sram", WORD_BYTES * size * (3 + 2 * len(self._kept)))


def count_factors(ledger: Ledger, estimate: Outer) -> None:
    """Count what the host does with the measured factors of an outer product before it is formed.

    Every value is stored when it is measured and read when it is used, and the left factor takes one operation per
    value: the difference between phases, or a scale.
    """
    ledger.count("host", "host optimiser", "byte_sram", 2 * WORD_BYTES * (estimate.left.size + estimate.right.size))
    ledger.count("host", "host optimiser", "alu_fp32", estimate.left.size)


@final
class InPlace:
    """Plain changes, added to what the devices hold; the host keeps nothing.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Shapes.
    rates : mapping of str to float
        Learning rate per parameter; a parameter without one is never changed.
    ledger : Ledger
        Where the host's work is counted.

    Raises
    ------
    InputError
        When a parameter is unknown, or a rate is negative or not finite.
    """

    def __init__(self, parameters: Mapping[str, Parameter], *, rates: Mapping[str, float], ledger: Ledger) -> None:
        self._parameters = dict(parameters)
        self._rates = check_rates(rates, parameters)
        self._ledger = ledger

    def step(self, estimates: Mapping[str, Estimate], rate_factor: float | Mapping[str, float] = 1.0) -> dict[str, Request]:
        """``Add(-rate g)`` for a dense estimate; an `Outer` stays one, its scale times -rate.

        Counted per dense estimate of n elements: n multiplications, and each element read and stored; per outer product
        `count_factors`.

        Raises
        ------
        InputError
            When an estimate does not fit, or its parameter has no rate. `Diverged` when an estimate is not finite.
        """
        factors = _factors(rate_factor, self._rates)
        for name, estimate in estimates.items():
            check_name("parameter with a rate", name, self._rates)
            check_estimate(name, estimate, self._parameters[name])
        requests: dict[str, Request] = {}
        for name, estimate in estimates.items():
            rate = self._rates[name] * factors[name]
            if isinstance(estimate, Outer):
                requests[name] = Outer(np.array(estimate.left), np.array(estimate.right), -rate * estimate.scale)
                count_factors(self._ledger, estimate)
            else:
                change = np.asarray(-rate * estimate)
                requests[name] = Add(change)
                self._ledger.count("host", "host optimiser", "alu_fp32", change.size)
                self._ledger.count("host", "host optimiser", "byte_sram", 2 * WORD_BYTES * change.size)
        return requests

    def state(self) -> dict[str, Array]:
        """Empty."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing is kept.

        Raises
        ------
        InputError
            When the state is of another optimiser.
        """
        if state:
            raise InputError(f"optimiser's state holds {', '.join(sorted(state))}; expected nothing, for changes in place")
