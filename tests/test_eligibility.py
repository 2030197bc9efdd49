"""Kernels of eligibility traces against traces that run forwards in time, and against finite differences."""

import numba
import numpy as np
import pytest
from naive_eligibility import online_sum

from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.eligibility import (
    accumulate,
    find_events,
    gather,
    gaussian_slope,
    padded,
    pseudo_derivative,
    slope_products,
    spread_back,
)


def problem(seed: int = 0, batch: int = 3, steps: int = 12, senders: int = 4, receivers: int = 5, reach: int = 3):
    rng = np.random.default_rng(seed)
    spikes = rng.choice([0, 1, 2], p=[0.7, 0.2, 0.1], size=(batch, steps, senders)).astype(np.uint8)
    delays = rng.integers(0, reach + 1, (receivers, senders))
    signal, factor = rng.normal(size=(2, batch, steps, receivers))
    leaks = np.where(rng.random((batch, steps, receivers)) < 0.2, 0.0, 0.8)
    return spikes, delays, leaks, factor, signal


@pytest.mark.parametrize("low_pass", [0.0, 0.7])
def test_gathered_sum_is_that_of_traces_which_run_forwards_in_time(low_pass: float) -> None:
    spikes, delays, leaks, factor, signal = problem()
    wanted = online_sum(spikes, delays, leaks, factor, low_pass, signal)
    filtered = accumulate(signal, np.full_like(signal, low_pass), 1)[:, :-1]
    met = accumulate(filtered * factor, leaks, int(delays.max()))
    found = gather(find_events(spikes, np.dtype(float)), delays, met)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_gather_of_axonal_later_and_no_delays() -> None:
    spikes, delays, _, _, signal = problem(1)
    events, held = find_events(spikes, np.dtype(float)), padded(signal, 4)
    for given in (None, delays[0], delays):
        for later in (0, 1):
            wanted = np.zeros(delays.shape)
            for b, t, i in np.argwhere(spikes):
                for j in range(len(delays)):
                    d = 0 if given is None else given[i] if given.ndim == 1 else given[j, i]
                    wanted[j, i] += spikes[b, t, i] * held[b, t + d + later, j]
            np.testing.assert_allclose(gather(events, given, held, later=later), wanted, rtol=1e-12, atol=1e-12)


def test_signals_run_back_through_synapses() -> None:
    _, delays, _, _, signal = problem(2)
    weights, steps = np.random.default_rng(3).normal(size=delays.shape), signal.shape[1]
    for given in (None, delays[0], delays):
        wanted = np.zeros((len(signal), steps, delays.shape[1]))
        for t in range(steps):
            for j, i in np.ndindex(*delays.shape):
                d = 0 if given is None else given[i] if given.ndim == 1 else given[j, i]
                if t + d < steps:
                    wanted[:, t, i] += weights[j, i] * signal[:, t + d, j]
        np.testing.assert_allclose(spread_back(padded(signal, 4), weights, given, steps), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_slope_is_the_finite_difference_of_a_smeared_out_spike(sigma: float) -> None:
    signal = np.random.default_rng(4).normal(size=(1, 60, 1))
    t, step, arrival = np.arange(60), 1e-5, 30

    def drive(at: float) -> float:
        return float(np.sum(signal[0, :, 0] * np.exp(-0.5 * ((t - at) / sigma) ** 2)) / (sigma * np.sqrt(2 * np.pi)))

    # later arrival: minus the slope of the Gaussian; where it is cut off, 5 sigma away, 2e-5 of its largest slope is left
    wanted = (drive(arrival + step) - drive(arrival - step)) / (2 * step)
    assert -gaussian_slope(signal, sigma, steps=signal.shape[1])[0, arrival, 0] == pytest.approx(wanted, abs=1e-4 / sigma**2)


def test_same_bits_for_any_number_of_threads() -> None:
    spikes, delays, leaks, factor, signal = problem(5, batch=8, steps=40, senders=80, receivers=16)
    found = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        met = accumulate(factor, leaks, 4)
        back = spread_back(signal, np.resize(factor, delays.shape), delays, 40)
        found.append((gather(find_events(spikes, np.dtype(float)), delays, met), back))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pseudo_derivatives() -> None:
    h = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(pseudo_derivative("triangle", h, 2.0, 0.3), [0, 0, 0.075, 0.15, 0.075, 0.0])
    arctangent = pseudo_derivative("arctangent", h, 2.0, 1.0)
    assert arctangent[3] == 2.5
    assert arctangent[2] == pytest.approx(2.5 / (1 + (2.5 * np.pi) ** 2))
    # both are densities: what they integrate to over h is what a spike is worth
    fine = np.linspace(-200, 200, 40_001)
    assert np.trapezoid(pseudo_derivative("arctangent", fine, 2.0, 1.0), fine) == pytest.approx(1.0, abs=2e-3)
    with pytest.raises(InputError, match="surrogate"):
        pseudo_derivative("box", h, 1.0, 0.3)
    with pytest.raises(InputError, match="gamma is 0"):
        pseudo_derivative("triangle", h, 1.0, 0.0)


@pytest.mark.parametrize("sigma", [0.3, 1.7, 9.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slope_is_the_matrix_product_that_it_stands_for(sigma: float, dtype: type) -> None:
    signal = np.random.default_rng(0).normal(size=(3, 30, 4)).astype(dtype)
    signal[:, 22:] = 0.0
    apart = np.arange(30)[None, :] - np.arange(30)[:, None]
    matrix = -apart / (sigma**3 * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * (apart / sigma) ** 2)
    within = np.abs(apart) <= np.ceil(5 * sigma)
    found = gaussian_slope(signal, sigma, steps=22)
    assert found.dtype == dtype
    wanted = np.where(within, matrix, 0.0) @ signal.astype(float)
    np.testing.assert_allclose(found, wanted, atol=(1e-6 if dtype is np.float32 else 1e-14) * np.abs(wanted).max())
    assert slope_products(30, 22, sigma) == np.count_nonzero(within[:, :22] & (apart[:, :22] != 0))
