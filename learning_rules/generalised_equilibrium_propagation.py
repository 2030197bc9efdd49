"""Generalised equilibrium propagation: rest points of any vector field, with or without an energy.

A network at rest where F(s) = 0 settles under a nudge where F(s) - beta dC/ds = 0. With J = dF/ds and e = dC/ds at the free
state,

    ds/dbeta = J^-1 e,        g = -(dF/dtheta)^T ds/dbeta,        gradient of the loss = -(dF/dtheta)^T J^-T e

so that what stands for the true error delta = J^-T e is

    ds/dbeta = J^-1 J^T delta

and this is the error that remains however well ds/dbeta is known: none where J is symmetric, to first order
-2 S^-1 A delta with J = S + A its symmetric and antisymmetric parts. Nothing here asks for symmetric couplings, and nothing makes
up for couplings that are not.

F is meant in activity coordinates, F_k = a_k(s) - f_k^-1(s_k), in which J is as symmetric as the couplings are. ds/dbeta comes
from

    nudged   N settlings at beta_k = r exp(2 pi i k / N), (1/N) sum_k s_k / beta_k, error O(r^N); complex activities for N > 2
    twin     J^-1 e solved in the digital twin linearised at the measured states: no settling, no error in r, but the errors of
             the twin. To be named as such wherever it stands beside measured ones

Source: Laborieux and Zenke, ICLR (2024), arXiv 2309.02214.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Rule, Stateless, Update
from inmaterio.learning_rules.nudged_circle import Circle, check_reached, settle_around
from inmaterio.learning_rules.relaxing_phases import diagnose, predict_free
from inmaterio.simulators.capabilities import LOSSES, Array, Requirement, Samples, Settled, requires
from inmaterio.simulators.digital_twin import WORD_BYTES, loss_and_gradient, to_array, to_tensor

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("Relaxing", "Pullback")}
DEFAULTS: Mapping[str, Any] = {
    "rates": (0.4, 0.2),
    "loss": "mse",
    "derivative": "nudged",
    "points": 2,
    "radius": 0.2,
    "free_steps": 40,
    "nudged_steps": 15,
    "tolerance": None,
    "shared_noise": False,
}
PROGRAMS = False
DERIVATIVES = ("nudged", "twin")

State = Stateless


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    loss : str
        Loss the nudge belongs to, one of `capabilities.LOSSES`.
    derivative : str
        Where ds/dbeta comes from, one of `DERIVATIVES`.
    circle : Circle
        Number of nudges and their strength; of no effect with ``derivative="twin"``.
    free_steps, nudged_steps : int
        Updates of the network per phase; the largest numbers where a tolerance is given.
    tolerance : float or None
        Residual at which a phase ends, and which it must then reach.
    shared_noise : bool
        Whether the phases of one update see the same noise, as when it is slower than all of them.
    """

    loss: str
    derivative: str
    circle: Circle
    free_steps: int
    nudged_steps: int
    tolerance: float | None
    shared_noise: bool


def build(
    *,
    substrate: Any,
    loss: str = "mse",
    derivative: str = "nudged",
    points: int = 2,
    radius: float = 0.2,
    free_steps: int = 40,
    nudged_steps: int = 15,
    tolerance: float | None = None,
    shared_noise: bool = False,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings` and `Circle`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait, or a hyperparameter is out of range.
    """
    check_name("loss", loss, LOSSES)
    check_name("derivative", derivative, DERIVATIVES)
    check_range("free_steps", free_steps, low=1, unit="updates")
    check_range("nudged_steps", nudged_steps, low=1, unit="updates")
    circle = Circle(points, radius)
    refuse(substrate, derivative, circle)
    settings = Settings(loss, derivative, circle, free_steps, nudged_steps, tolerance, shared_noise)
    return Rule(init, partial(update, substrate, settings), partial(predict, substrate, settings))


def refuse(substrate: Any, derivative: str, circle: Circle) -> None:
    """Raise `InputError` when the substrate lacks what the rule needs to find ds/dbeta in this way."""
    missing, way = REQUIRES["substrate"].missing(substrate), ""
    if not missing and derivative == "twin":
        missing, way = requires("Twin").missing(substrate), " with derivative 'twin'"
    elif not missing and circle.points > 2:
        missing, way = requires("holomorphic").missing(substrate), f" with {circle.points} points, more than 2,"
    if missing:
        raise InputError(f"generalised equilibrium propagation{way} cannot train this substrate: it {missing}")


def init(key: Key) -> State:
    """No state is kept."""
    return Stateless()


def update(substrate: Any, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """Free phase of one batch, ds/dbeta there, and its pullback to parameters.

    Estimates are of gradients of the batch-mean loss, up to the bias said above.

    Raises
    ------
    InputError
        When a tolerance was asked for and a phase does not reach it.
    """
    with substrate.ledger.phase("free"):
        free: Settled = substrate.settle(
            batch.inputs,
            samples=batch.samples,
            key=key.at("shared" if settings.shared_noise else "free"),
            steps=settings.free_steps,
            tolerance=settings.tolerance,
        )
    check_reached(free, None, "radius")
    derivatives, nudged = state_derivatives(substrate, settings, batch, free, key)
    estimates = substrate.pullback(batch.inputs, free.states, tuple(np.negative(vector) for vector in derivatives))
    return Update(state, estimates, diagnose(settings.loss, batch, free, *nudged))


def predict(substrate: Any, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Outputs (batch, outputs) of the free phase; only they are read."""
    return predict_free(substrate, inputs, samples, key, steps=settings.free_steps, tolerance=settings.tolerance)


def state_derivatives(
    substrate: Any, settings: Settings, batch: Batch, free: Settled, key: Key
) -> tuple[tuple[Array, ...], list[Settled]]:
    """ds/dbeta at the free state, one array (batch, width) per layer, and the nudged phases it took."""
    if settings.derivative == "twin":
        with substrate.ledger.phase("twin"):
            _, gradient = loss_and_gradient(settings.loss, free.states[-1], batch.targets, substrate.ports["output"])
            return solve_twin(substrate.ledger, substrate.twin(), batch.inputs, free.states, gradient), []
    nudged = settle_around(
        substrate,
        batch,
        key,
        settings.circle,
        loss=settings.loss,
        steps=settings.nudged_steps,
        tolerance=settings.tolerance,
        shared_noise=settings.shared_noise,
    )
    return settings.circle.measure(free, nudged).state_derivatives(), nudged


def solve_twin(ledger: Ledger, twin: Any, inputs: Array, states: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    """J^-1 e of each sample, by elimination in the twin linearised at these states.

    With H = da/ds, the Jacobian of the drives, and D the slopes f' of the responses, J = H - D^-1. What is solved is
    (D H - 1) v = D e, which a saturated node, D = 0, does not upset.

    Parameters
    ----------
    ledger : Ledger
        Charged, in the open phase, the elimination in the host, n^3/3 + 2 n^2 multiply-accumulates for n nodes.
    twin : torch.nn.Module
        With ``field(inputs, states)`` and ``slopes(inputs, states)``.
    inputs : ndarray, shape (batch, n_0)
    states : tuple of ndarray, each (batch, n_k)
        As measured.
    gradient : ndarray, shape (batch, n_L)
        e, dC/ds of the outputs; no other node has one.

    Returns
    -------
    tuple of ndarray, each (batch, n_k)
        In float64.

    Raises
    ------
    InputError
        When the twin does not say how steep its responses are.
    """
    import torch

    for name in ("field", "slopes"):
        if not hasattr(twin, name):
            raise InputError(f"the twin has no {name}; derivative 'twin' needs one that does, expected 'nudged'")
    tensors = [to_tensor(state, torch.float64).requires_grad_() for state in states]
    widths = [tensor.shape[1] for tensor in tensors]
    size, batch = sum(widths), len(inputs)
    field = torch.cat(tuple(twin.field(to_tensor(inputs, torch.float64), tuple(tensors))), dim=1)
    # samples do not mix: row i of every sample's Jacobian in one pull
    rows = torch.eye(size, dtype=torch.float64)[:, None, :].expand(size, batch, size)
    pulled = torch.autograd.grad(field, tensors, rows, is_grads_batched=True, materialize_grads=True)
    identity = torch.eye(size, dtype=torch.float64)
    drives = torch.cat(pulled, dim=2).transpose(0, 1) + identity
    slopes = torch.cat([slope.detach() for slope in twin.slopes(inputs, tuple(tensors))], dim=1)
    right = torch.zeros(batch, size, dtype=torch.float64)
    right[:, -widths[-1] :] = to_tensor(gradient, torch.float64)
    solved = torch.linalg.solve(slopes[:, :, None] * drives - identity, slopes * right)
    ledger.count("host", "digital twin", "mac_fp32", batch * (size**3 // 3 + 2 * size**2))
    ledger.count("host", "digital twin", "byte_sram", batch * WORD_BYTES * size**2)
    return tuple(to_array(vector) for vector in solved.split(widths, dim=1))
