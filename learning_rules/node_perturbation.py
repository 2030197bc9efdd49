"""Node perturbation: known noise behind every map, and each sample's own change of the loss, blame the map that the noise met.

With y_k = W_k a_k + b_k the map of layer k as measured, xi_k standard normal noise per sample and node, and sigma_k = s times the
root mean square of y_k in the batch,

    one-sided     dC = C(y_k + sigma_k xi_k for all k) - C
    two-sided     dC = [C(+) - C(-)] / 2
    g_W_k = mean dC / sigma_k xi_k (x) a_k,   g_b_k = mean dC / sigma_k xi_k

The mean over xi is the gradient of the batch-mean loss up to O(s^2), since odd moments of xi vanish; for given xi, dC / s is the
slope along it up to O(s), two-sided O(s^2). Blame is spread over the nodes and not over the couplings, and every sample has
noise of its own: the variance is that of weight perturbation divided by about the fan-in and the batch.

Noise may be added behind all maps at once, or behind one after the other (a pass more per layer, and no layer disturbs another).

Sources: Widrow and Lehr, Proc. IEEE 78, 1415 (1990); Le Cun, Galland and Hinton, NIPS 1 (1988); Dalm, van Gerven and Ahmad,
"Effective learning with node perturbation in multi-layer neural networks" (2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Stateless, Update
from inmaterio.learning_rules.perturbations import VARIANTS, Floats, check_loss, count_correlation, counted_losses
from inmaterio.simulators.capabilities import Array, Estimate, Layer, Outer, Requirement, Samples, requires

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Forward", "ReadLayers", "InjectNode", "Program", "mapped")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.01,
    "loss": "mse",
    "size": 0.2,
    "variant": "one-sided",
    "order": "together",
    "shared_noise": False,
}
PROGRAMS = False

ORDERS = ("together", "in turn")
"""Noise behind all maps at once, or behind one after the other."""

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        ``"mse"`` or ``"cross_entropy"``.
    size : float
        s: standard deviation of the noise, in units of the root mean square of what leaves the map in this batch (of 1 where that
        is all zero).
    variant : str
        One of `perturbations.VARIANTS`.
    order : str
        One of `ORDERS`.
    shared_noise : bool
        Whether all passes of an update see the same read noise, as two read at the same instant would.
    """

    loss: str
    size: float
    variant: str
    order: str
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    size: float = 0.2,
    variant: str = "one-sided",
    order: str = "together",
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; hyperparameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or a trait, or does not have one coupling and at most one bias per layer, a
        hyperparameter is out of range, or the outputs cannot have this loss.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"node perturbation cannot train this substrate: it {missing}")
    check_loss(loss, substrate.ports["output"])
    check_range("size", size, low=0.0, low_open=True, high_open=True)
    check_name("variant", variant, VARIANTS)
    check_name("order", order, ORDERS)
    settings = Settings(loss, float(size), variant, order, shared_noise)
    return Rule(init, partial(update, substrate, settings, map_names(substrate)), partial(predict, substrate))


def map_names(substrate: Any) -> tuple[tuple[str, str], ...]:
    """Names of the coupling and of the bias (empty where there is none) of every map, from the input on.

    Raises
    ------
    InputError
        When a layer has not exactly one coupling and at most one bias.
    """
    found = []
    parameters = substrate.parameters
    for layer in sorted({one.layer for one in parameters.values()}):
        weights = [name for name, one in parameters.items() if one.layer == layer and len(one.shape) == 2]
        biases = [name for name, one in parameters.items() if one.layer == layer and len(one.shape) == 1]
        if len(weights) != 1 or len(biases) > 1:
            raise InputError(
                f"layer {layer} has {len(weights)} couplings and {len(biases)} biases; expected 1 coupling and at most 1 bias"
            )
        found.append((weights[0], biases[0] if biases else ""))
    return tuple(found)


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(
    substrate: Any, settings: Settings, names: tuple[tuple[str, str], ...], state: State, batch: Batch, key: Key
) -> Update:
    """One pass per sample in phase ``free``, and in phase ``perturbed`` one or (two-sided) two for each injection.

    There is one injection when all maps are perturbed together, otherwise one per map. The host's blame, one product per sample
    and node, is counted in the latter phase; the outer products are counted by whoever forms them.

    Raises
    ------
    InputError
        When the batch does not fit the ports, or there are not as many maps as couplings.
    """

    def noise(*place: str | int) -> Key:
        return key.at("noise") if settings.shared_noise else key.at("noise", *place)

    output = substrate.ports["output"]
    targets = check_array("target", batch.targets, shape=(len(batch), output.size), unit=output.unit)
    with substrate.ledger.phase("free"):
        layers: tuple[Layer, ...] = substrate.layers(batch.inputs, samples=batch.samples, key=noise("free"))
        free = counted_losses(substrate, settings.loss, layers[-1].outputs, targets)
    if len(layers) != len(names):
        raise InputError(f"{len(layers)} maps were measured; expected {len(names)}, one per coupling")
    noises = [normals(key.at("nodes", k), batch.samples, layer.outputs.shape[1]) for k, layer in enumerate(layers)]
    sizes = [settings.size * _spread(layer.outputs) for layer in layers]
    everywhere = tuple(size * noise for size, noise in zip(sizes, noises, strict=True))
    nowhere = tuple(np.zeros_like(one) for one in everywhere)

    def change(offsets: tuple[Floats, ...], place: int) -> Floats:
        def passed(side: str, signed: tuple[Floats, ...]) -> Floats:
            outputs = substrate.inject(batch.inputs, signed, samples=batch.samples, key=noise(side, place))
            return counted_losses(substrate, settings.loss, outputs, targets)

        plus = passed("plus", offsets)
        if settings.variant == "one-sided":
            return plus - free
        return 0.5 * (plus - passed("minus", tuple(-one for one in offsets)))

    with substrate.ledger.phase("perturbed"):
        if settings.order == "together":
            changes = [change(everywhere, 0)] * len(layers)
        else:
            changes = [change((*nowhere[:k], everywhere[k], *nowhere[k + 1 :]), k) for k in range(len(layers))]
        estimates: dict[str, Estimate] = {}
        for k, (weight, bias) in enumerate(names):
            blame = (changes[k] / sizes[k])[:, None] * noises[k]
            # what blame and features make of one another is counted where the outer product is formed
            count_correlation(substrate, blame.size)
            estimates[weight] = Outer(blame, layers[k].features)
            if bias:
                estimates[bias] = blame.mean(axis=0)
    return Update(state, estimates, Diagnostics(float(free.mean()), layers[-1].outputs))


def predict(substrate: Any, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of one forward pass."""
    return substrate.forward(inputs, samples=samples, key=key)  # type: ignore[no-any-return]


def _spread(outputs: Array) -> float:
    size = float(np.sqrt(np.mean(np.asarray(outputs, dtype=np.float64) ** 2)))
    return size if size > 0.0 else 1.0
