"""Physics-aware training: exact with a perfect twin, measured forward, better than the twin alone with an imperfect one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ready_network import ask, assert_order_of_rows_is_nothing, descend, device_passes, exact, flat, ready, some_batch

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.registry import find_substrate
from inmaterio.learning_rules import backpropagation, physics_aware_training
from inmaterio.learning_rules.contract import Batch

CHEAP = {"twin_pairs": 60, "twin_hidden": 4, "twin_epochs": 1}
LAYERS = 3


def give_twin(substrate: Any, change: Callable[[np.ndarray, int], np.ndarray] = lambda mixing, k: mixing) -> None:
    """A twin that is the physics of every layer, tanh(A x) / 0.7, with A changed as told: fitted by hand."""
    snapshot = substrate.snapshot()
    for k in range(1, LAYERS + 1):
        mixing = change(snapshot[f"layer_{k}/physics/mixing"], k)
        outputs, inputs = mixing.shape
        snapshot |= {
            f"layer_{k}/model/linear": np.zeros((outputs, inputs + 1)),
            f"layer_{k}/model/inner": np.concatenate([mixing, np.zeros((outputs, 1))], axis=1),
            f"layer_{k}/model/outer": np.eye(outputs) / 0.7,
            f"layer_{k}/model/fidelity": 1.0,
        }
    substrate.restore(snapshot)


def mismatch(size: float, seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda mixing, k: mixing * (1.0 + size * np.random.default_rng([seed, k]).normal(size=mixing.shape))


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("options", [{}, {"skip": True, "response": "positive", "labels": False}])
def test_a_perfect_twin_gives_the_exact_gradient(loss: str, options: dict[str, Any]) -> None:
    substrate = ready((5, 6, 4, 3), **options)
    give_twin(substrate)
    batch = some_batch(substrate)
    found = ask(physics_aware_training.build(substrate=substrate, loss=loss), substrate, batch)
    wanted = exact(substrate, batch, loss)
    assert set(found.estimates) == set(wanted) == set(substrate.parameters)
    np.testing.assert_allclose(flat(found.estimates), flat(wanted), rtol=1e-9, atol=1e-12)


def test_the_forward_value_is_always_the_physical_one() -> None:
    substrate = ready((5, 6, 4, 3))
    batch, found = some_batch(substrate), []
    for size in (0.0, 0.5):
        give_twin(substrate, mismatch(size, 0))
        found.append(ask(physics_aware_training.build(substrate=substrate), substrate, batch))
    assert found[0].diagnostics.loss == found[1].diagnostics.loss
    np.testing.assert_array_equal(found[0].diagnostics.outputs, found[1].diagnostics.outputs)
    np.testing.assert_allclose(found[0].diagnostics.outputs, substrate.oracle().outputs(batch.inputs), rtol=1e-10)
    # the last map stands behind the last physics: no slope of the twin is in its gradient
    np.testing.assert_allclose(found[0].estimates["weight_3"], found[1].estimates["weight_3"], rtol=1e-10, atol=1e-13)
    assert np.abs(found[0].estimates["weight_1"] - found[1].estimates["weight_1"]).max() > 1e-3


def test_a_measured_forward_pass_is_worth_more_than_the_twins_own() -> None:
    cosines = {}
    for size in (0.1, 0.2, 0.5):
        pairs = []
        for seed in range(6):
            substrate = ready((5, 8, 8, 3), seed)
            batch = some_batch(substrate, 16)
            wanted = flat(exact(substrate, batch, "mse"))
            give_twin(substrate, mismatch(size, seed))
            pairs.append(
                [
                    cosine(flat(ask(module.build(substrate=substrate), substrate, batch).estimates), wanted)
                    for module in (physics_aware_training, backpropagation)
                ]
            )
        cosines[size] = np.array(pairs)
        assert (cosines[size][:, 0] > cosines[size][:, 1]).all(), (size, pairs)
    aware = [cosines[size][:, 0].mean() for size in cosines]
    assert aware[0] > aware[1] > aware[2]
    assert aware[0] > 0.95


def test_passes_and_the_hosts_work_are_those_of_the_ledger() -> None:
    substrate = ready((5, 6, 4, 3), **CHEAP)
    rule, batch = physics_aware_training.build(substrate=substrate), some_batch(substrate, 7)
    first = ask(rule, substrate, batch)
    assert device_passes(substrate, "train/free") == LAYERS * 7
    assert device_passes(substrate, "train/twin") == LAYERS * 60, "the twin is fitted when it is first needed"
    ask(rule, substrate, batch, state=first.state)
    assert device_passes(substrate, "train/free") == 2 * LAYERS * 7
    assert device_passes(substrate, "train/twin") == LAYERS * 60, "and then it is kept"
    macs = substrate.twin().macs_per_sample
    events = substrate.ledger.events
    assert events[("train/twin", "host", "digital twin", "mac_fp32")] == 2 * 7 * macs
    assert events[("train/backward", "host", "digital twin", "mac_fp32")] == 2 * 7 * 2 * macs
    assert events[("train/twin", "host", "twin fit", "mac_fp32")] > 0


class Watched:
    """A substrate that says how often its twin was asked for and fitted."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.asked, self.keys = inner, 0, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def twin(self) -> Any:
        self.asked += 1
        return self._inner.twin()

    def identify(self, *, key: Key) -> float:
        self.keys.append(key)
        return float(self._inner.identify(key=key))


@pytest.mark.parametrize(("refresh_every", "fits"), [(0, 0), (2, 2), (5, 1)])
def test_the_twin_is_fitted_again_as_often_as_told(refresh_every: int, fits: int) -> None:
    substrate = Watched(ready((4, 3), **CHEAP))
    rule, batch, state = (
        physics_aware_training.build(substrate=substrate, refresh_every=refresh_every),
        some_batch(substrate),
        None,
    )
    for n in range(6):
        state = ask(rule, substrate, batch, Key(n), state).state
    assert state == physics_aware_training.State(6)
    assert substrate.asked == 6, "once per update"
    assert len(set(substrate.keys)) == len(substrate.keys) == fits
    assert device_passes(substrate, "train/twin") == 60 * (1 + fits)


def test_a_knock_leaves_the_twin_behind_until_it_is_fitted_again() -> None:
    substrate = ready((5, 6, 3), twin_pairs=600, twin_hidden=20, twin_epochs=30, labels=False)
    batch = some_batch(substrate, 16)
    rule = physics_aware_training.build(substrate=substrate, refresh_every=1)
    state = physics_aware_training.State()

    def worth(state: Any) -> float:
        found = ask(rule, substrate, batch, state=state)
        arrays = {name: one for name, one in found.estimates.items() if name.endswith("_1")}
        wanted = {name: one for name, one in exact(substrate, batch, "mse").items() if name.endswith("_1")}
        return cosine(flat(arrays), flat(wanted))

    before = worth(state)
    substrate.disturb(1.0, Key(4))
    after, fresh = worth(state), worth(physics_aware_training.State(1))
    assert before > 0.9
    assert after < 0.8 * before
    assert fresh > after + 0.5 * (before - after)


def test_order_of_rows_is_nothing() -> None:
    substrate = ready((5, 6, 3), noise=0.02, **CHEAP)
    assert_order_of_rows_is_nothing(physics_aware_training.build(substrate=substrate), substrate, some_batch(substrate))


def test_no_error_no_change() -> None:
    substrate = ready((5, 6, 3), tunable=2, **CHEAP)
    batch = some_batch(substrate)
    there = Batch(batch.inputs, substrate.oracle().outputs(batch.inputs), batch.samples)
    rule = physics_aware_training.build(substrate=substrate)
    assert np.abs(flat(ask(rule, substrate, there).estimates)).max() < 1e-12
    assert np.abs(ask(rule, substrate, batch).estimates["physics_1/tuning"]).max() > 1e-4


def test_it_learns() -> None:
    substrate = ready((4, 6, 3), twin_pairs=300, twin_hidden=10, twin_epochs=10)
    before, after = descend(physics_aware_training.build(substrate=substrate), substrate, some_batch(substrate, 8), 0.01, 100)
    assert after < 0.3 * before


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(
        InputError, match="physics-aware training cannot train this substrate: it lacks capability Identification"
    ):
        physics_aware_training.build(substrate=find_substrate("hopfield-ideal").build((4, 3), chip=Key(0)))
    with pytest.raises(InputError, match=r"refresh_every is -1 updates; expected a number in \[0, inf\) updates"):
        physics_aware_training.build(substrate=ready((4, 3)), refresh_every=-1)
