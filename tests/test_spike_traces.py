"""Traces in words of a few bits, rules that learn from them, and what a rule sees of links that err."""

from typing import Any

import numpy as np
import pytest
from naive_eligibility import online_sum
from small_spiking_network import check_alike, make, spikes_of, update

from inmaterio.devices.randomness import Key
from inmaterio.devices.spike_trace import SpikeTrace
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import e_prop, three_factor_delay_learning
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.eligibility import pseudo_derivative
from inmaterio.learning_rules.learning_engine import find_traced
from inmaterio.learning_rules.spiking_measurement import find_sent, measure, membrane_factors

FOUR_ERRORS = 4.0
"""Standard errors of a mean that a test allows."""


def exact(spikes: np.ndarray, leak: float) -> np.ndarray:
    out = np.zeros(spikes.shape)
    for t in range(spikes.shape[1]):
        out[:, t] = (leak * out[:, t - 1] if t else 0.0) + spikes[:, t]
    return out


def test_a_trace_decays_on_average_as_one_without_words() -> None:
    rows, leak = 4000, 0.83
    spikes = np.zeros((rows, 40, 3))
    spikes[:, (0, 7)] = 1.0
    spikes[:, 12, 1] = 2.0
    found = SpikeTrace(7, 16).traces(spikes, leak, samples=np.arange(rows), key=Key(0))
    wanted = exact(spikes, leak)
    np.testing.assert_array_equal(found * 16, np.rint(found * 16))
    error = (found - wanted).mean(axis=0) / np.maximum(found.std(axis=0) / np.sqrt(rows), 1e-12)
    moving = found.std(axis=0) > 0
    assert moving.sum() > 50
    assert np.abs(error[moving]).max() < FOUR_ERRORS + 0.5  # the largest of some hundred
    np.testing.assert_allclose(found.mean(axis=0)[~moving], wanted[0][~moving], atol=1e-12)
    assert found[:, -1].max() < 0.5 and (found[:, -1] == 0).any(), "it comes to rest, where rounding to the nearest does not"


def test_it_saturates() -> None:
    found = SpikeTrace(7, 100).traces(np.ones((1, 5, 1)), 0.9, samples=np.zeros(1, np.int64), key=Key(0))
    np.testing.assert_array_equal(found[0, :, 0] * 100, [100, 127, 127, 127, 127])


def test_draws_are_those_of_the_sample_the_step_and_the_sender() -> None:
    spikes, samples = (np.random.default_rng(0).random((5, 30, 6)) < 0.2).astype(float), np.array([3, 1, 4, 0, 9])
    found = SpikeTrace(7, 16).traces(spikes, 0.8, samples=samples, key=Key(1))
    order = np.array([4, 2, 0, 1, 3])
    np.testing.assert_array_equal(SpikeTrace(7, 16).traces(spikes[order], 0.8, samples=samples[order], key=Key(1)), found[order])
    assert not np.array_equal(SpikeTrace(7, 16).traces(spikes, 0.8, samples=samples, key=Key(2)), found)
    assert not np.array_equal(SpikeTrace(7, 16).traces(spikes[:1], 0.8, samples=samples[1:2], key=Key(1)), found[:1])


@pytest.mark.parametrize(
    ("bits", "impulse", "said"),
    [
        (0, 1, "trace bits is 0"),
        (7, 128, "trace impulse is 128 levels"),
        (7.5, 16, "trace bits is 7.5"),
        (7, 0, "trace impulse is 0"),
    ],
)
def test_bad_words_are_refused(bits: Any, impulse: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SpikeTrace(bits, impulse)
    with pytest.raises(InputError, match=said):
        make((6,), trace_bits=bits, trace_impulse=impulse)


ENGINE = {"engine": "chip", "trace": "presynaptic", "feedback": "random"}
OPTIONS = [{"readout": "mean-membrane"}, {"recurrent": True, "reset": "soft"}, {"delays": "axonal"}, {"delays": "none"}]


CASES = [(e_prop, one) for one in OPTIONS] + [(three_factor_delay_learning, one) for one in OPTIONS[:-1]]


@pytest.mark.parametrize(("rule_file", "options"), CASES, ids=lambda one: getattr(one, "__name__", str(one)).split(".")[-1])
def test_a_rule_on_traces_is_on_average_the_rule(rule_file: Any, options: dict[str, Any]) -> None:
    """The estimate is linear in the traces: its mean over draws is the estimate without words, where nothing saturates."""
    hyper = {**ENGINE, "errors": "scores" if options.get("readout") == "mean-membrane" else "steps"}
    plain, _, batch = make((6,), **options)
    if rule_file is three_factor_delay_learning:
        # an engine also feels the part of a Gaussian that lies before the first step: nothing arrives within its reach of it
        hyper["sigma_start"] = 0.5
        batch.inputs[:, : 3 * 5] = 0.0
    wanted = update(plain, rule_file, batch, **hyper).estimates
    wide, _, _ = make((6,), trace_bits=16, trace_impulse=4096, **options)
    check_alike(update(wide, rule_file, batch, **hyper).estimates, wanted, 5e-3)
    narrow, _, _ = make((6,), trace_bits=7, trace_impulse=8, **options)
    draws = [update(narrow, rule_file, batch, key=key, **hyper).estimates for key in range(60)]
    for name, one in wanted.items():
        found = np.array([each[name] for each in draws])
        deviation = found.std(axis=0, ddof=1)
        moving = deviation > 1e-12
        assert moving.any() or name.startswith("bias")
        away = (found.mean(axis=0) - one)[moving] / (deviation[moving] / np.sqrt(len(draws)))
        assert not away.size or np.abs(away).max() < FOUR_ERRORS + 1.0, name  # of Student's t with 59 degrees of freedom


def test_words_of_the_same_key_have_the_same_bits() -> None:
    network, _, batch = make((6,), trace_bits=7, recurrent=True)
    order = np.array([2, 0, 3, 1])
    turned = Batch(batch.inputs[order], batch.targets[order], batch.samples[order])
    first, again, other, new = (
        update(network, e_prop, one, key=key, errors="steps", **ENGINE).estimates
        for one, key in ((batch, 1), (batch, 1), (turned, 1), (batch, 2))
    )
    for name, one in first.items():
        np.testing.assert_array_equal(one, again[name])
        np.testing.assert_array_equal(one, other[name])
    assert not np.array_equal(first["weight_1"], new["weight_1"])


LINKS = [{"spike_drop": 0.5}, {"spike_jitter": 1.5}, {"link_capacity": 1}, {"link_capacity": 1, "link_policy": "stall"}]


@pytest.mark.parametrize("options", LINKS, ids=str)
@pytest.mark.parametrize("block_steps", [5, 128])
def test_what_neurons_make_is_seen_apart_from_what_comes_over_the_link(options: dict[str, Any], block_steps: int) -> None:
    network, _, batch = make(recurrent=True, tail_steps=20, **options)
    network._block_steps = block_steps
    run = spikes_of(network, batch)
    threshold = network.description.threshold
    for sent, made, membranes in zip(run.spikes, run.made, run.membranes[:-1], strict=True):
        np.testing.assert_array_equal(made, membranes >= threshold)
        assert not np.array_equal(sent, made)
        assert sent.sum() <= made.sum()
    with network.ledger.phase("evaluate"):
        counted = network.activity(batch.inputs, samples=batch.samples, key=Key(0))
    np.testing.assert_array_equal(counted.spikes[:, :-1].T, [one.sum(axis=(1, 2)) for one in run.made])
    with network.ledger.phase("train"):
        measured = measure(network, batch, Key(0))
    found = find_sent(measured)
    assert [len(found[f"recurrent_weight_{k}"].rows) for k in (1, 2)] == [one.sum() for one in measured.made]
    assert len(found["weight_2"].rows) == np.count_nonzero(measured.senders[1])
    emptied = membrane_factors(measured, 1, emptied=True) == 0.0
    np.testing.assert_array_equal(emptied, measured.membranes[0] >= threshold)


def test_links_that_err_in_nothing_keep_one_record() -> None:
    network, _, batch = make(recurrent=True)
    run = spikes_of(network, batch)
    assert all(made is sent for made, sent in zip(run.made, run.spikes, strict=True))


def test_graded_spikes_add_the_nearest_number_of_levels() -> None:
    spikes = np.array([0.3, 0.0, 1.7]).reshape(1, 3, 1)
    found = SpikeTrace(7, 5).traces(spikes, 0.0, samples=np.zeros(1, np.int64), key=Key(0))
    np.testing.assert_array_equal(5 * found[0, :, 0], [2, 0, 8])  # 1.5 to the even 2, 8.5 to the even 8


def test_traces_are_of_what_each_projection_hears_with_the_leak_that_registers_hold() -> None:
    """A layer's own spikes as made, those of the layer below as they came; leaks in 3 bits; every projection draws for itself."""
    options = {"spike_drop": 0.5, "spike_jitter": 1.0, "tail_steps": 12, "decay_bits": 3, "recurrent": True, "delays": "none"}
    network, _, batch = make((6, 6), trace_bits=16, trace_impulse=4096, leak=0.8, output_leak=0.55, **options)
    with network.ledger.phase("train"):
        measured = measure(network, batch, Key(0))
    assert not np.array_equal(measured.made[0], measured.senders[1])
    found = find_traced(measured, Key(3), reach=2)
    shown = np.pad(measured.senders[0], ((0, 0), (0, measured.steps - 14), (0, 0)))
    heard = {
        "weight_1": (shown, 0.75),  # 0.8: 1 - leak in eighths
        "weight_2": (measured.senders[1], 0.75),
        "weight_3": (measured.senders[2], 0.5),  # 0.55; 0.45 is 3.6 eighths
        "recurrent_weight_1": (measured.made[0], 0.75),
        "recurrent_weight_2": (measured.made[1], 0.75),
    }
    assert set(found) == set(heard)
    dense = {}
    for name, (spikes, leak) in heard.items():
        wanted = exact(np.pad(spikes.astype(float), ((0, 0), (0, 2), (0, 0))), leak)
        events, dense[name] = found[name], np.zeros(wanted.shape)
        sender = np.repeat(np.arange(wanted.shape[2]), np.diff(events.starts))
        dense[name][events.rows, events.times, sender] = events.amplitudes
        np.testing.assert_allclose(dense[name], wanted, atol=4 / 4096)
    alike, _, batch = make((6, 6), leak=0.7, trace_bits=7, trace_impulse=4, recurrent=True, delays="none")
    with alike.ledger.phase("train"):
        twice = measure(alike, batch, Key(0))
    same = find_traced(twice, Key(3), reach=0)
    # the second layer's own spikes, and the same spikes on their way to the outputs, at the same leak
    assert not np.array_equal(same["recurrent_weight_2"].amplitudes, same["weight_3"].amplitudes)


def test_one_trace_per_synapse_carries_symmetric_feedback_through_axonal_delays() -> None:
    """Traces that run forwards in time, each neuron's eligibility met by the errors of all outputs after its own delay."""
    network, values, batch = make((6,), readout="mean-membrane", delays="axonal", reset="soft")
    found = update(network, e_prop, batch, engine="chip", errors="steps", loss="mse", trace="presynaptic").estimates
    run = spikes_of(network, batch)
    hidden, outputs = run.membranes
    steps, about = hidden.shape[1], network.description
    errors = (outputs - batch.targets[:, None]) / steps
    signal = np.zeros(hidden.shape)
    for j, delay in enumerate(values["delay_2"].astype(int)):
        signal[:, : steps - delay, j] = errors[:, delay:] @ values["weight_2"][:, j]
    slope = pseudo_derivative("triangle", hidden, about.threshold, 0.3)
    shown = batch.inputs.reshape(len(batch), about.steps, -1)
    delays = np.tile(values["delay_1"].astype(int), (6, 1))
    wanted = online_sum(shown, delays, np.full(hidden.shape, about.leak), slope, about.output_leak, signal) / len(batch)
    check_alike({"weight_1": found["weight_1"]}, {"weight_1": wanted}, 1e-12)
