"""How well a rule estimates the gradient: the cosine to the exact one, layer by layer, on a fixed batch.

The exact gradient comes from the substrate's oracle, which no rule ever sees. A probe is shown in the ledger under
`evaluate`, charged to nobody, and leaves the substrates as they were.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.optimisers import check_estimate
from inmaterio.simulators.capabilities import Array, Estimate, Outer, Parameter, Write

PROBE_ROWS = 100
"""Rows of the fixed batch: the first of the training rows."""


def layer_cosines(
    estimates: Mapping[str, Estimate], exact: Mapping[str, Array], parameters: Mapping[str, Parameter]
) -> dict[str, float | None]:
    """Cosine of two gradients per layer, over all parameters of the layer together.

    Parameters
    ----------
    estimates, exact : mapping
        Gradient of each parameter; parameters that one of them lacks are left out.
    parameters : mapping of str to Parameter
        Says which layer each parameter drives.

    Returns
    -------
    dict
        ``layer_1`` and so on; None where one of the two is zero.
    """
    layers: dict[str, list[tuple[Array, Array]]] = {}
    for name, about in parameters.items():
        if name in estimates and name in exact:
            estimate = estimates[name]
            dense = estimate.dense() if isinstance(estimate, Outer) else estimate
            pair = (np.ravel(dense).astype(np.complex128), np.ravel(exact[name]).astype(np.complex128))
            layers.setdefault(f"layer_{about.layer}", []).append(pair)
    cosines: dict[str, float | None] = {}
    for layer, together in layers.items():
        left, right = (np.concatenate(side) for side in zip(*together, strict=True))
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        # Real part: for complex parameters descent goes along the conjugate pairing.
        cosines[layer] = float(np.vdot(left, right).real) / norms if norms > 0 and np.isfinite(norms) else None
    return cosines


def ask(rule: Rule, name: str, state: Any, batch: Batch, key: Key, parameters: Mapping[str, Parameter]) -> Update:
    """One update of a rule, its answer checked: what is wrong with it is the rule's, and is said so.

    Parameters
    ----------
    rule : Rule
    name : str
        Its name, for messages.
    state : object
    batch : Batch
    key : Key
    parameters : mapping of str to Parameter
        Those of what it trains.

    Raises
    ------
    InputError
        When `update` returns something other than an `Update` of a mapping of estimates and `Diagnostics`, or an estimate
        is neither an array nor an `Outer` of two, or belongs to no parameter.
    """
    found = rule.update(state, batch, key)
    if not isinstance(found, Update):
        raise InputError(f"update of rule {name!r} returned {type(found).__name__}; expected an Update")
    if not isinstance(found.estimates, Mapping):
        raise InputError(f"estimates of rule {name!r} are a {type(found.estimates).__name__}; expected a mapping by parameter")
    if not isinstance(found.diagnostics, Diagnostics):
        raise InputError(f"diagnostics of rule {name!r} are a {type(found.diagnostics).__name__}; expected Diagnostics")
    check_outputs(name, found.diagnostics.outputs, batch.targets.shape)
    for one, estimate in found.estimates.items():
        check_name(f"parameter that rule {name!r} has an estimate for:", one, parameters)
        factors = (estimate.left, estimate.right) if isinstance(estimate, Outer) else (estimate,)
        for factor in factors:
            if not isinstance(factor, np.ndarray) or factor.dtype.kind not in "biufc":
                raise InputError(
                    f"estimate of {one} by rule {name!r} holds {type(factor).__name__}; "
                    "expected an array of numbers, or an Outer of two"
                )
            if isinstance(estimate, Outer) and factor.ndim != 2:
                raise InputError(f"a factor of the estimate of {one} has shape {factor.shape}; expected (batch, nodes)")
    return found


def check_outputs(name: str, outputs: Any, shape: tuple[int, ...]) -> None:
    """See that what a rule calls its outputs is an array of numbers of this shape.

    Raises
    ------
    InputError
        When it is not.
    """
    if not isinstance(outputs, np.ndarray) or outputs.dtype.kind not in "biuf" or outputs.shape != shape:
        found = f"shape {outputs.shape} of {outputs.dtype}" if isinstance(outputs, np.ndarray) else type(outputs).__name__
        raise InputError(f"outputs of rule {name!r} are {found}; expected real numbers of shape {shape}")


def probe(
    rule: Rule, name: str, state: Any, learner: Any, chip: Any, batch: Batch, loss: str, key: Key
) -> dict[str, float | None]:
    """Cosine per layer of what a rule estimates now to the exact gradient of the chip.

    Parameters
    ----------
    rule : Rule
        On the learner.
    name : str
        Its name, for messages.
    state : object
    learner : substrate
        Whose parameters it trains.
    chip : substrate
        Where the gradient has to hold. When it is another than the learner (its twin), the learner's present values are
        written to it for the time of the probe: then the cosine is what the twin's gradient is worth on this chip.
    batch : Batch
    loss : str
    key : Key

    Returns
    -------
    dict
        As `layer_cosines`; empty when the rule gives no estimates or no exact gradient is known.

    Raises
    ------
    InputError
        As `ask`, or when an estimate has a wrong shape or is not finite.
    """
    before = {id(one): (one, one.snapshot()) for one in (learner, chip)}
    try:
        with chip.ledger.phase("evaluate"):
            if chip is not learner:
                values = learner.read_back(key=key.at("read back"))
                chip.program({one: Write(np.asarray(values[one])) for one in chip.parameters}, key=key.at("program"))
            exact = exact_gradient(chip, batch, loss)
            if exact is None:
                return {}
            update = ask(rule, name, state, batch, key, learner.parameters)
            estimates = update.estimates if update.diagnostics.of_loss is None else update.diagnostics.of_loss
        for one, estimate in estimates.items():
            check_estimate(one, estimate, learner.parameters[one])
        return layer_cosines(estimates, exact, learner.parameters) if estimates else {}
    finally:
        for one, snapshot in before.values():
            one.restore(snapshot)


def exact_gradient(chip: Any, batch: Batch, loss: str) -> Mapping[str, Array] | None:
    """Gradient of the batch-mean loss in the chip's exact model; None where there is no such model, or it has no gradient."""
    try:
        oracle = chip.oracle()
    except NotImplementedError:
        return None
    if oracle is None or not hasattr(oracle, "loss_gradient"):
        return None
    return oracle.loss_gradient(batch.inputs, batch.targets, loss)  # type: ignore[no-any-return]
