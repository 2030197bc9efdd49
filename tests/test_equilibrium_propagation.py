"""Equilibrium propagation against the exact gradient, with the order of its error in beta."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Nudge, Outer, Write
from inmaterio.simulators.fixed_point import loss_values
from inmaterio.simulators.hopfield import HopfieldNetwork

WIDTHS = (16, 12, 8, 5)
KEY = Key(0)


def network(key: int = 0, widths: tuple[int, ...] = WIDTHS, gain: float = 0.4, **options: object) -> HopfieldNetwork:
    substrate = hopfield.build(widths, chip=Key(key), **{"dtype": "float64", "schedule": "synchronous", **options})
    values = initial_values(substrate.parameters, key=Key(key, ("init",)), gain=gain)
    rng = np.random.default_rng(key)
    for name, value in values.items():
        if name.startswith("bias"):
            values[name] = rng.normal(scale=0.2, size=value.shape)
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(key, ("write",)))
    return substrate


def batch(key: int = 0, widths: tuple[int, ...] = WIDTHS, size: int = 7) -> Batch:
    rng = np.random.default_rng(100 + key)
    inputs = rng.uniform(0.0, 1.0, (size, widths[0]))
    return Batch(inputs, rng.uniform(0.0, 1.0, (size, widths[-1])), np.arange(size))


def flat(gradient: Mapping[str, object]) -> np.ndarray:
    return np.concatenate([np.ravel(g.dense() if isinstance(g, Outer) else g) for _, g in sorted(gradient.items())])


def estimate(substrate: HopfieldNetwork, data: Batch, key: Key = KEY, **hyper: object) -> np.ndarray:
    settings = {"tolerance": 1e-14, "free_steps": 5000, "nudged_steps": 5000, **hyper}
    rule = equilibrium_propagation.build(substrate=substrate, **settings)
    with substrate.ledger.phase("train"):
        update = rule.update(rule.init(Key(0)), data, key)
    if settings["tolerance"] is not None:
        assert update.diagnostics.residual <= settings["tolerance"]
    return flat(update.estimates)


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def slope(betas: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(betas), np.log(errors), 1)[0])


def contraction(substrate: HopfieldNetwork, data: Batch) -> float:
    """Ratio of successive residuals close to the rest point."""
    residuals = []
    with substrate.ledger.phase("evaluate"):
        for steps in (15, 25):
            settled = substrate.settle(data.inputs, samples=data.samples, key=Key(0), steps=steps)
            residuals.append(float(settled.residual.max()))
    return (residuals[1] / residuals[0]) ** 0.1


@pytest.mark.parametrize("schedule", ["synchronous", "even-odd"])
@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "output_activation": "tanh"}, {"feedback_gain": 0.6}])
def test_centred_estimate_is_the_gradient(schedule: str, options: dict[str, object]) -> None:
    substrate, data = network(schedule=schedule, **options), batch()
    assert contraction(substrate, data) < 0.9
    exact = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    found = estimate(substrate, data, beta=3e-4)
    cosine = found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)
    assert cosine > 1 - 1e-6
    assert relative_error(found, exact) < 1e-5


def test_exact_gradient_is_the_finite_difference() -> None:
    # the oracle itself, against something it does not share: differences of the loss
    substrate, data = network(), batch()
    oracle = substrate.oracle()
    gradient = oracle.loss_gradient(data.inputs, data.targets, "mse")
    values = {name: parameter.detach().numpy() for name, parameter in substrate.twin().named_parameters()}
    rng = np.random.default_rng(1)
    for name, value in values.items():
        direction = rng.normal(size=value.shape)
        losses = []
        for step in (1e-5, -1e-5):
            with substrate.ledger.phase("initialise"):
                substrate.program({name: Write(value + step * direction)}, key=Key(1))
            losses.append(substrate.oracle().loss(data.inputs, data.targets, "mse"))
        with substrate.ledger.phase("initialise"):
            substrate.program({name: Write(value)}, key=Key(1))
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(np.sum(gradient[name] * direction), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("variant", "order"), [("one-sided", 1.0), ("centred", 2.0)])
def test_order_of_the_error_in_beta(variant: str, order: float) -> None:
    substrate, data = network(), batch()
    exact = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    betas = list(np.geomspace(1e-3, 1e-2, 5))
    errors = [relative_error(estimate(substrate, data, beta=beta, variant=variant), exact) for beta in betas]
    assert slope(betas, errors) == pytest.approx(order, abs=0.1)


def test_mean_over_random_signs_is_the_centred_estimate() -> None:
    substrate, data = network(), batch()
    centred = estimate(substrate, data, beta=0.1)
    signs: dict[int, np.ndarray] = {}
    for number in range(20):
        key = Key(number)
        signs.setdefault(key.at("sign").words()[0] % 2, estimate(substrate, data, key=key, beta=0.1, variant="random-sign"))
    assert set(signs) == {0, 1}
    mean = (signs[0] + signs[1]) / 2
    assert relative_error(mean, centred) < 1e-12
    assert relative_error(signs[0], centred) > 1e-3


def test_place_of_the_nudge_decides_the_loss() -> None:
    # cross entropy's nudge stands behind the response: it must fit that loss and fail the squared error's
    substrate, data = network(widths=(16, 12, 5), gain=1.0), batch(widths=(16, 12, 5))
    oracle = substrate.oracle()
    found = estimate(substrate, data, beta=1e-4, loss="cross_entropy")
    cross = flat(oracle.loss_gradient(data.inputs, data.targets, "cross_entropy"))
    squared = flat(oracle.loss_gradient(data.inputs, data.targets, "mse"))
    assert relative_error(found, cross) < 1e-5
    assert found @ squared / np.linalg.norm(found) / np.linalg.norm(squared) < 0.9
    assert relative_error(found, squared) > 0.5


def bptt(substrate: HopfieldNetwork, data: Batch, steps: int) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """States and weights of each of the last `steps` synchronous updates, with gradients of the summed loss."""
    oracle = substrate.oracle()
    inputs = torch.tensor(data.inputs)
    state = [torch.tensor(s) for s in oracle.states(data.inputs)]
    states, weights = [], []
    for _ in range(steps):
        state = [s.detach().requires_grad_() if not states else s for s in state]
        copies = [torch.tensor(w, requires_grad=True) for w in oracle.model.forward]
        weights.append(copies)
        drives = []
        for k in range(len(state)):
            drive = (inputs if k == 0 else state[k - 1]) @ copies[k].T + torch.tensor(oracle.model.biases[k])
            if k + 1 < len(state):
                drive = drive + state[k + 1] @ copies[k + 1]
            drives.append(torch.sigmoid(4 * drive - 2))
        states.append(state)
        state = drives
        for s in state:
            s.retain_grad()
    states.append(state)
    loss = 0.5 * ((state[-1] - torch.tensor(data.targets)) ** 2).sum()
    loss.backward()
    for s in (s for at_step in states + weights for s in at_step):
        s.grad = torch.zeros_like(s) if s.grad is None else s.grad  # no path to the loss: the error has not come so far
    return states, weights


def root_mean_square(found: np.ndarray, wanted: np.ndarray) -> float:
    """Ernoult's measure, over time, then meant over elements; arrays (time, ...)."""
    largest = np.maximum((found**2).sum(axis=0), (wanted**2).sum(axis=0))
    used = largest > 0
    return float(np.mean(np.sqrt(((found - wanted) ** 2).sum(axis=0)[used] / largest[used])))


def test_nudged_steps_are_the_gradients_of_backpropagation_through_time() -> None:
    # Ernoult et al. 2019: step t of the nudged phase shows the gradient t steps before the end
    steps = 8
    substrate, data = network(), batch(size=3)
    states, weights = bptt(substrate, data, steps)
    oracle = substrate.oracle()
    free = oracle.states(data.inputs)
    state_gradients = [np.stack([states[steps - t][k].grad.numpy() for t in range(steps)]) for k in range(3)]
    weight_gradients = [np.stack([weights[steps - 1 - t][k].grad.numpy() for t in range(steps)]) for k in range(3)]
    betas = [1e-4, 1e-3, 1e-2]
    state_errors, weight_errors = [], []
    for beta in betas:
        with substrate.ledger.phase("evaluate"):
            settled = substrate.settle(
                data.inputs,
                samples=data.samples,
                key=Key(0),
                nudge=Nudge("mse", data.targets, beta),
                start=free,
                steps=steps,
                record=True,
            )
        path = [np.concatenate([free[k][None], settled.record[k]]) for k in range(3)]
        below = [np.broadcast_to(data.inputs, (steps + 1, *data.inputs.shape)), *path[:-1]]
        moved, grown = [], []
        for k in range(3):
            # sigma'(a) dL/ds, since the nudge stands inside the response
            activation = oracle.model.activations[k]
            moved.append(root_mean_square(-np.diff(path[k], axis=0) / beta, activation.slope(free[k]) * state_gradients[k]))
            products = np.einsum("tbi,tbj->tij", path[k], below[k])
            grown.append(root_mean_square(-np.diff(products, axis=0) / beta, weight_gradients[k]))
        state_errors.append(np.mean(moved))
        weight_errors.append(np.mean(grown))
    assert slope(betas, state_errors) == pytest.approx(1.0, abs=0.1)
    assert slope(betas, weight_errors) == pytest.approx(1.0, abs=0.1)


def test_first_layers_move_only_when_the_error_has_reached_them() -> None:
    substrate, data = network(), batch(size=3)
    free = substrate.oracle().states(data.inputs)
    with substrate.ledger.phase("evaluate"):
        kwargs = {"samples": data.samples, "key": Key(0), "start": free, "steps": 3, "record": True}
        plain = substrate.settle(data.inputs, **kwargs)
        nudged = substrate.settle(data.inputs, nudge=Nudge("mse", data.targets, 0.1), **kwargs)
    arrived = [[bool(np.any(nudged.record[k][t] != plain.record[k][t])) for t in range(3)] for k in range(3)]
    assert arrived == [[False, False, True], [False, True, True], [True, True, True]]


def test_single_precision_has_a_best_beta() -> None:
    data = batch()
    exact = flat(network().oracle().loss_gradient(data.inputs, data.targets, "mse"))
    single = network(dtype="float32")
    betas = [1e-6, 1e-4, 1e-2, 1e-1, 0.5]
    errors = [
        relative_error(estimate(single, data, beta=beta, tolerance=None, free_steps=200, nudged_steps=200), exact)
        for beta in betas
    ]
    best = int(np.argmin(errors))
    assert 0 < best < len(betas) - 1
    assert errors[0] > 10 * errors[best] < errors[-1]


@pytest.mark.parametrize("activation", ["sigmoid", "hard-sigmoid", "tanh"])
def test_even_odd_sweeps_never_raise_the_energy(activation: str) -> None:
    substrate, data = network(schedule="even-odd", activation=activation, output_activation=activation, gain=2.0), batch()
    rng = np.random.default_rng(2)
    low = -0.9 if activation == "tanh" else 0.05
    start = tuple(rng.uniform(low, 0.95, (7, width)) for width in WIDTHS[1:])
    with substrate.ledger.phase("evaluate"):
        settled = substrate.settle(data.inputs, samples=data.samples, key=Key(0), start=start, steps=30, record=True)
    oracle = substrate.oracle()
    energies = [oracle.energy(data.inputs, start)]
    energies += [oracle.energy(data.inputs, tuple(layer[t] for layer in settled.record)) for t in range(30)]
    # between two records only odd layers, then only even ones moved: the state between is put together from both
    path = [start, *[tuple(layer[t] for layer in settled.record) for t in range(30)]]
    halves = []
    for before, after in zip(path[:-1], path[1:], strict=True):
        middle = tuple((after if k % 2 == 0 else before)[k] for k in range(3))
        halves += [oracle.energy(data.inputs, before), oracle.energy(data.inputs, middle)]
    changes = np.diff(np.array([*halves, energies[-1]]), axis=0)
    assert changes[0].max() < 0.0
    assert changes.max() <= 1e-12


def test_cost_is_ordered_by_the_nudge_and_the_energy_bookkeeping_holds() -> None:
    substrate, data = network(), batch()
    cost, total = {}, {}
    oracle = substrate.oracle()
    with substrate.ledger.phase("evaluate"):
        for beta in (0.01, 0.0, -0.01):
            nudge = Nudge("mse", data.targets, beta) if beta else None
            settled = substrate.settle(data.inputs, samples=data.samples, key=Key(0), nudge=nudge, tolerance=1e-14)
            cost[beta] = loss_values(settled.states[-1], data.targets, "mse")
            total[beta] = oracle.energy(data.inputs, settled.states) + beta * cost[beta]
    assert np.all(cost[0.01] < cost[0.0])
    assert np.all(cost[0.0] < cost[-0.01])
    # d/dbeta of the least total energy is the cost
    np.testing.assert_allclose((total[0.01] - total[-0.01]) / 0.02, cost[0.0], rtol=1e-3)


def test_nudged_phases_leave_the_held_free_state_alone() -> None:
    substrate, data = network(), batch()
    with substrate.ledger.phase("evaluate"):
        kwargs = {"samples": data.samples, "key": Key(0)}
        free = substrate.settle(data.inputs, tolerance=1e-14, **kwargs)
        before = [state.copy() for state in free.states]
        nudge = Nudge("mse", data.targets, 0.5)
        first = substrate.settle(data.inputs, nudge=nudge, start="free", steps=3, **kwargs)
        second = substrate.settle(data.inputs, nudge=nudge, start="free", steps=3, **kwargs)
    for a, b, c, d in zip(before, free.states, first.states, second.states, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(c, d)
        assert not np.array_equal(a, c)


def test_estimates_are_batch_means() -> None:
    substrate, data = network(), batch(size=4)
    whole = estimate(substrate, data, beta=0.1)
    parts = [estimate(substrate, Batch(data.inputs[[i]], data.targets[[i]], data.samples[[i]]), beta=0.1) for i in range(4)]
    np.testing.assert_allclose(whole, np.mean(parts, axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"beta": 0.0}, "beta is 0; expected a number in (0"),
        ({"beta": -0.1}, "beta is -0.1; expected"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"variant": "centered"}, "unknown variant 'centered'; nearest: centred"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"free_steps": 0}, "free_steps is 0 updates"),
    ],
)
def test_bad_hyperparameters(hyper: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        equilibrium_propagation.build(substrate=network(), **hyper)
    assert message in str(error.value)


def test_a_network_that_runs_away_is_refused() -> None:
    substrate, data = network(activation="linear", output_activation="linear", gain=3.0), batch()
    rule = equilibrium_propagation.build(substrate=substrate, free_steps=500)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=r"free phase runs away.*smaller weights"):
        rule.update(rule.init(Key(0)), data, Key(0))


def test_phases_are_counted_apart() -> None:
    substrate, data = network(), batch()
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    rule = equilibrium_propagation.build(substrate=substrate)
    with ledger.phase("train"):
        rule.update(rule.init(Key(0)), data, Key(0))
    passes = {phase: amount for (phase, _, name), amount in ledger.tallies.items() if name == "device_pass"}
    assert passes == {"train/free": 7, "train/positive": 7, "train/negative": 7}
