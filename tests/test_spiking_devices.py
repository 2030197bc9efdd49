"""Parts of a spiking chip: words of its memories, the spread of its neurons, and links that lose, delay and hold back spikes.

Where chance is tested, keys are fixed, and bounds are those that a sound generator oversteps with fewer than one of 10,000 keys.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from inmaterio.devices.neuron_mismatch import NeuronMismatch
from inmaterio.devices.randomness import LARGEST_NORMAL, Key, normals, uniforms
from inmaterio.devices.spike_link import SpikeLink, is_dropped, jitter_steps
from inmaterio.devices.synapse_memory import SynapseMemory, WordGrid, delay_grid, weight_grid
from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork, build

MANY = 40_000
FALSE_ALARM = 1e-4


class TestMemory:
    @given(bits=st.integers(2, 10), most=st.sampled_from([1.0, 0.37, 12.0]), seed=st.integers(0, 99))
    def test_weights_go_to_the_nearest_of_their_levels(self, bits: int, most: float, seed: int) -> None:
        grid = weight_grid(most, bits)
        asked = np.random.default_rng(seed).uniform(-1.3 * most, 1.3 * most, 500)
        held = grid.place("weight", asked)
        levels = np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)) * grid.step
        assert len(levels) == 2**bits - 1 and 0.0 in levels
        np.testing.assert_allclose(levels[[0, -1]], [-most, most], rtol=1e-15)
        distances = np.abs(asked[:, None] - levels)
        np.testing.assert_allclose(np.abs(held - asked), distances.min(axis=1), atol=1e-12 * most)
        assert np.isin(held, levels).all()
        np.testing.assert_array_equal(grid.place("weight", held), held)
        np.testing.assert_array_equal(grid.place("weight", -asked), -held)

    def test_half_way_goes_to_the_even_multiple(self) -> None:
        grid = WordGrid(-8.0, 8.0, 0.5)
        np.testing.assert_array_equal(
            grid.place("weight", np.array([0.25, 0.75, 1.25, -0.25, -0.75])), [0.0, 1.0, 1.0, 0.0, -1.0]
        )
        delays = delay_grid(62, 4, "nearest")
        np.testing.assert_array_equal(delays.place("delay", np.array([2.0, 6.0, 10.0, 61.9, 62.0])), [0, 8, 8, 60, 60])

    def test_what_is_no_multiple_can_be_refused(self) -> None:
        grid = delay_grid(62, 4, "refuse")
        np.testing.assert_array_equal(grid.place("delay", np.array([0.0, 60.0])), [0.0, 60.0])
        with pytest.raises(InputError, match=r"delay is 6 step at \(1,\); expected a multiple of 4 step"):
            grid.place("delay", np.array([4.0, 6.0]))

    def test_sums_are_rounded_and_cut_and_small_ones_lost(self) -> None:
        memory = SynapseMemory(WordGrid(-1.0, 1.0, 0.25), (4,), name="weight")
        assert memory.write(np.array([0.0, 0.5, 0.75, -1.0])) == 4
        assert memory.add(np.array([0.1, 0.2, 0.9, 0.0])) == 3
        np.testing.assert_array_equal(memory.held, [0.0, 0.75, 1.0, -1.0])
        with pytest.raises(ValueError, match="read-only"):
            memory.held[0] = 1.0

    def test_without_a_step_words_are_floating_point(self) -> None:
        memory = SynapseMemory(weight_grid(np.inf, None), (2,), dtype=np.float32)
        memory.write(np.array([0.1, -1e30]))
        np.testing.assert_array_equal(memory.held, np.array([0.1, -1e30], np.float32))

    def test_size_in_bytes(self) -> None:
        assert SynapseMemory(weight_grid(1.0, 6), (10, 7)).bytes == 53  # 420 bits
        assert SynapseMemory(delay_grid(62, 1, "nearest"), (8,)).bytes == 6  # 6 bits each
        assert SynapseMemory(delay_grid(0, 1, "nearest"), (8,)).bytes == 1

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"low": 1.0, "high": 0.0}, "upper end"),
            ({"step": -1.0}, "step of a memory's words is -1"),
            ({"rounding": "up"}, "unknown rounding"),
            ({"outside": "wrap"}, "unknown policy"),
        ],
    )
    def test_bad_grids_are_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            WordGrid(**options)


def is_normal(values: NDArray[np.float64], mean: float, deviation: float) -> None:
    """Kolmogorov's test against a normal of this mean and deviation."""
    assert stats.kstest((values - mean) / deviation, "norm").pvalue > FALSE_ALARM


class TestMismatch:
    def test_each_spread_has_its_mean_and_deviation_and_acts_alone(self) -> None:
        key = Key(1)
        for which, spread in (("tau_spread", 0.1), ("threshold_spread", 0.05), ("gain_spread", 0.2)):
            mismatch = NeuronMismatch(**{which: spread})
            taus = -1.0 / np.log(mismatch.leaks(0.9, MANY, key))
            found = {
                "tau_spread": taus * -np.log(0.9),
                "threshold_spread": mismatch.thresholds(1.5, MANY, key) / 1.5,
                "gain_spread": mismatch.gains(MANY, key),
            }
            for name, values in found.items():
                if name == which:
                    is_normal(values, 1.0, spread)
                else:
                    np.testing.assert_allclose(values, 1.0, rtol=1e-12)
            assert not mismatch.stuck(MANY, key).any()

    def test_errors_are_independent_of_one_another_and_of_the_chip(self) -> None:
        mismatch = NeuronMismatch(0.1, 0.1, 0.1)
        drawn = [
            value
            for chip in (0, 1)
            for value in (
                np.log(mismatch.leaks(0.9, MANY, Key(chip))),
                mismatch.thresholds(1.0, MANY, Key(chip)),
                mismatch.gains(MANY, Key(chip)),
            )
        ]
        correlations = np.corrcoef(drawn)[np.triu_indices(6, 1)]
        # 15 correlations, each of standard deviation 1/sqrt(MANY)
        assert np.abs(correlations).max() < stats.norm.isf(FALSE_ALARM / 30) / np.sqrt(MANY)

    def test_nothing_falls_below_zero(self) -> None:
        mismatch = NeuronMismatch(3.0, 3.0, 3.0)
        for values in (mismatch.leaks(0.9, 999, Key(0)), mismatch.thresholds(1.0, 999, Key(0)), mismatch.gains(999, Key(0))):
            assert values.min() == 0.0 and np.isfinite(values).all()
        np.testing.assert_array_equal(mismatch.leaks(0.0, 5, Key(0)), np.zeros(5))
        assert mismatch.leaks(0.9, 999, Key(0)).max() < 1.0

    def test_stuck_neurons_are_a_fraction_of_all(self) -> None:
        stuck = NeuronMismatch(stuck_fraction=0.07).stuck(MANY, Key(4))
        assert stats.binomtest(int(stuck.sum()), MANY, 0.07).pvalue > FALSE_ALARM

    def test_bad_spreads_are_refused(self) -> None:
        with pytest.raises(InputError, match="tau_spread is -0.1"):
            NeuronMismatch(tau_spread=-0.1)
        with pytest.raises(InputError, match="stuck_fraction is 1"):
            NeuronMismatch(stuck_fraction=1.0)


class TestLink:
    def test_draws_are_those_of_the_step_sample_and_neuron(self) -> None:
        link = SpikeLink(drop=0.3, jitter=2.0)
        d0, d1, j0, j1 = (np.uint64(word) for word in link.words(Key(2)))
        for step, sample in ((0, 0), (7, 3), (900, 123_456)):
            drops = uniforms(Key(2).at("drop"), np.array([sample]), 9, step=step)[0] < 0.3
            late = np.maximum(np.rint(2.0 * normals(Key(2).at("jitter"), np.array([sample]), 9, step=step)[0]), 0)
            for neuron in range(9):
                assert is_dropped(0.3, d0, d1, step, sample, neuron) == drops[neuron]
                assert jitter_steps(2.0, j0, j1, step, sample, neuron) == late[neuron]

    def test_as_many_spikes_are_lost_as_should_be(self) -> None:
        d0, d1, _, _ = (np.uint64(word) for word in SpikeLink(drop=0.13).words(Key(3)))
        lost = sum(is_dropped(0.13, d0, d1, step, 5, neuron) for step in range(100) for neuron in range(200))
        assert stats.binomtest(lost, 20_000, 0.13).pvalue > FALSE_ALARM

    @pytest.mark.parametrize("deviation", [0.4, 1.5])
    def test_jitter_is_a_rounded_normal_and_never_early(self, deviation: float) -> None:
        link = SpikeLink(jitter=deviation)
        _, _, j0, j1 = (np.uint64(word) for word in link.words(Key(3)))
        late = np.array([jitter_steps(deviation, j0, j1, step, 5, neuron) for step in range(100) for neuron in range(200)])
        assert late.min() == 0 and late.max() <= link.latest <= deviation * LARGEST_NORMAL + 1
        edges = np.array([0.5, 1.5, 2.5, np.inf])
        chances = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges]) / deviation))
        seen = np.bincount(np.minimum(late, 3), minlength=4)
        likely = chances * len(late) > 5
        kept = np.append(seen[likely], seen[~likely].sum()), np.append(chances[likely], chances[~likely].sum())
        filled = kept[1] > 0
        assert stats.chisquare(kept[0][filled], kept[1][filled] * len(late)).pvalue > FALSE_ALARM

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"capacity": 0}, "link capacity is 0 spikes per step"),
            ({"capacity": 1.5}, "whole number"),
            ({"policy": "drop-oldest"}, "unknown link policy"),
            ({"drop": 1.0}, "spike drop is 1"),
            ({"jitter": -1.0}, "spike jitter is -1"),
        ],
    )
    def test_bad_links_are_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            SpikeLink(**options)


STEPS, WIDTH = 50, 12


def relay(**options: Any) -> SpikingNetwork:
    """Every channel drives a hidden neuron of its own, which fires for each spike; a silent output behind them."""
    network = build((STEPS * WIDTH, WIDTH, 1), chip=Key(7), steps=STEPS, tail_steps=30, delays="none", leak=0.0, **options)
    with network.ledger.phase("initialise"):
        network.program({"weight_1": Write(np.eye(WIDTH))}, key=Key(0))
    return network


def bursts() -> NDArray[np.float64]:
    """Spikes of two samples, (2, STEPS, WIDTH): many at once in the first half, few in the second."""
    rng = np.random.default_rng(0)
    chance = np.where(np.arange(STEPS) < STEPS // 2, 0.5, 0.02)
    return (rng.random((2, STEPS, WIDTH)) < chance[None, :, None]).astype(float)


def sent(network: SpikingNetwork, spikes: NDArray[np.float64]) -> tuple[NDArray[np.uint8], Any]:
    with network.ledger.phase("evaluate"):
        arguments = {"samples": np.arange(len(spikes)), "key": Key(8)}
        flat = spikes.reshape(len(spikes), -1)
        return network.run(flat, **arguments).spikes[0], network.activity(flat, **arguments)


class TestInANetwork:
    def test_an_ideal_link_changes_nothing(self) -> None:
        spikes = bursts()
        raster, counted = sent(relay(), spikes)
        np.testing.assert_array_equal(raster[:, :STEPS], spikes)
        assert not raster[:, STEPS:].any()
        np.testing.assert_array_equal(counted.messages[:, 1], spikes.sum(axis=(1, 2)))

    def test_a_full_link_drops_the_highest_numbers(self) -> None:
        spikes = bursts()
        raster, counted = sent(relay(link_capacity=3, link_policy="drop-newest"), spikes)
        kept = spikes * (np.cumsum(spikes, axis=2) <= 3)
        np.testing.assert_array_equal(raster[:, :STEPS], kept)
        np.testing.assert_array_equal(counted.over_capacity[:, 0], (spikes - kept).sum(axis=(1, 2)))
        np.testing.assert_array_equal(counted.messages[:, 1] + counted.over_capacity[:, 0], counted.spikes[:, 0])
        assert counted.over_capacity[:, 0].min() > 10

    def test_a_full_link_that_stalls_loses_none(self) -> None:
        spikes = bursts()
        raster, counted = sent(relay(link_capacity=3, link_policy="stall"), spikes)
        assert raster.sum(axis=2).max() == 3 and raster.max() == 1
        # never more sent than fired by any step, of any neuron, and none left in the end: there are steps enough behind
        padded = np.concatenate([spikes, np.zeros((2, 30, WIDTH))], axis=1)
        assert (np.cumsum(raster, axis=1) <= np.cumsum(padded, axis=1)).all()
        np.testing.assert_array_equal(raster.sum(axis=1), spikes.sum(axis=1))
        assert not counted.waiting.any() and not counted.over_capacity.any()
        # it is never idle while spikes wait, of which it takes one per neuron and step
        waiting = np.cumsum(padded, axis=1) - np.cumsum(raster, axis=1, dtype=int) + raster
        np.testing.assert_array_equal(raster.sum(axis=2), np.minimum((waiting > 0).sum(axis=2), 3))

    def test_spikes_that_still_wait_at_the_end_are_counted(self) -> None:
        spikes = np.ones((1, STEPS, WIDTH))
        _, counted = sent(relay(link_capacity=2, link_policy="stall"), spikes)
        assert counted.spikes[0, 0] == STEPS * WIDTH
        assert counted.messages[0, 1] == 2 * (STEPS + 30)
        assert counted.waiting[0, 0] == STEPS * WIDTH - 2 * (STEPS + 30)

    def test_dropped_and_late_spikes_are_those_of_the_link(self) -> None:
        spikes = bursts()
        raster, counted = sent(relay(spike_drop=0.2), spikes)
        np.testing.assert_array_equal(raster.sum(axis=(1, 2)) + counted.dropped[:, 0], spikes.sum(axis=(1, 2)))
        assert (raster[:, :STEPS] <= spikes).all() and counted.dropped.sum() > 10
        raster, counted = sent(relay(spike_jitter=2.0), spikes)
        np.testing.assert_array_equal(raster.sum(axis=1), spikes.sum(axis=1))  # none before, the tail is long enough
        assert (np.cumsum(raster[:, :STEPS], axis=1) <= np.cumsum(spikes, axis=1)).all()
        assert not np.array_equal(raster[:, :STEPS], spikes)

    def test_stuck_neurons_never_fire(self) -> None:
        raster, _ = sent(relay(stuck_fraction=0.4), bursts())
        stuck = NeuronMismatch(stuck_fraction=0.4).stuck(WIDTH, Key(7).at("neurons", 1))
        assert 0 < stuck.sum() < WIDTH
        np.testing.assert_array_equal(raster.any(axis=(0, 1)), ~stuck)

    def test_neurons_differ_as_their_chip_says(self) -> None:
        """Under a steady drive: the membrane after n steps is that of each neuron's own leak and gain."""
        options = {"tau_mismatch": 0.3, "gain_mismatch": 0.2, "dtype": "float64"}
        network = build((4 * 1, 6, 1), chip=Key(7), steps=4, delays="none", leak=0.8, threshold=100.0, **options)
        with network.ledger.phase("initialise"):
            network.program({"weight_1": Write(np.ones((6, 1)))}, key=Key(0))
        with network.ledger.phase("evaluate"):
            h = network.run(np.ones((1, 4)), samples=np.zeros(1, int), key=Key(0), membranes=True).membranes[0][0, -1]
        mismatch = NeuronMismatch(0.3, 0.0, 0.2)
        leaks, gains = mismatch.leaks(0.8, 6, Key(7).at("neurons", 1)), mismatch.gains(6, Key(7).at("neurons", 1))
        np.testing.assert_allclose(h, gains * (1 + leaks + leaks**2 + leaks**3), rtol=1e-12)
        assert np.ptp(h) > 0.5

    def test_each_neuron_has_its_own_threshold(self) -> None:
        """An integrator without leak but rounding, driven by 1/64 in each step: it fires when it gets to its threshold."""
        network = build(
            (200, 9, 1), chip=Key(7), steps=200, delays="none", leak=1 - 2**-50, threshold_mismatch=0.2, dtype="float64"
        )
        with network.ledger.phase("initialise"):
            network.program({"weight_1": Write(np.full((9, 1), 1 / 64))}, key=Key(0))
        with network.ledger.phase("evaluate"):
            spikes = network.run(np.ones((1, 200)), samples=np.zeros(1, int), key=Key(0)).spikes[0][0]
        thresholds = NeuronMismatch(threshold_spread=0.2).thresholds(1.0, 9, Key(7).at("neurons", 1))
        np.testing.assert_array_equal(spikes.argmax(axis=0) + 1, np.ceil(64 * thresholds))

    def test_decays_are_rounded_to_their_bits(self) -> None:
        network = build((3, 1), chip=Key(0), steps=3, delays="none", output_leak=0.9, decay_bits=12, dtype="float64")
        with network.ledger.phase("initialise"):
            network.program({"weight_1": Write(np.ones((1, 1)))}, key=Key(0))
        with network.ledger.phase("evaluate"):
            h = network.run(np.array([[1.0, 0, 0]]), samples=np.zeros(1, int), key=Key(0), membranes=True).membranes[0][0, :, 0]
        np.testing.assert_array_equal(h, [1.0, 1 - 410 / 4096, (1 - 410 / 4096) ** 2])


def test_a_leak_that_a_register_holds_as_one_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"leak is 0.99995, which a decay register of 12 bits holds as 1; expected at most 0.999756"
    ):
        SpikingDescription((2, 2), leak=0.99995, decay_bits=12)
    assert SpikingDescription((2, 2), leak=1 - 2**-12, decay_bits=12).held_leak(1 - 2**-12) < 1.0
