"""The twin of a spiking chip against plain loops that torch differentiates; both ways to compute give the same."""

from dataclasses import fields, replace
from typing import Any

import naive_delays
import numba
import numpy as np
import pytest
import torch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import delayed_synapses, spiking_network
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.digital_twin import macs_per_sample
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_twin import make_twin

STEPS, CHANNELS = 20, 6
BASE = SpikingDescription((STEPS * CHANNELS, 9, 8, 3), steps=STEPS, tail_steps=4, max_delay=7, leak=0.8, dtype="float64")

FORMS = {
    "plain": BASE,
    "soft, strict": replace(BASE, reset="soft", strict=True),
    "refractory": replace(BASE, refractory_steps=2),
    "refractory, soft": replace(BASE, refractory_steps=3, reset="soft"),
    "recurrent": replace(BASE, recurrent=True),
    "recurrent, axonal, refractory": replace(BASE, recurrent=True, delays="axonal", refractory_steps=1, reset="soft"),
    "axonal, mean": replace(BASE, delays="axonal", readout="mean-membrane", output_leak=0.95),
    "no delays, recurrent": replace(BASE, delays="none", recurrent=True),
    "spiking outputs": replace(BASE, readout="spike-count"),
    "one delay": replace(BASE, max_delay=0),
    "longer delays than steps": replace(BASE, max_delay=30, tail_steps=8),
}


def values_of(about: SpikingDescription, seed: int = 0, spread: float = 0.5) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(0.0, about.max_delay, one.shape)
        if one.unit == "step"
        else generator.normal(0.05 if "bias" in name else 0.0, 0.05 if "bias" in name else spread, one.shape)
        for name, one in about.parameters().items()
    }


def inputs_of(about: SpikingDescription, density: float = 0.3, batch: int = 5) -> torch.Tensor:
    generator = np.random.default_rng(1)
    shape = batch, about.widths[0]
    return torch.from_numpy(np.where(generator.random(shape) < density, generator.integers(1, 3, shape), 0).astype(float))


def both(about: SpikingDescription, sigma: float | None, inputs: torch.Tensor) -> list[Any]:
    """Scores, spikes, membranes and gradients of the twin and of the plain loops."""
    values = values_of(about)
    twin: Any = make_twin(about, values)
    if sigma is not None:
        twin.use_gaussian(sigma)
    plain = {name: torch.tensor(one, requires_grad=True) for name, one in values.items()}
    if about.max_delay == 0:
        sigma = None  # a kernel of one delay has nothing to spread over
    direction = torch.from_numpy(np.random.default_rng(2).normal(size=(len(inputs), about.widths[-1])))
    found: list[Any] = []
    for (scores, spikes, membranes), held in (
        (twin.record(inputs), dict(twin.named_parameters())),
        (naive_delays.network(about, plain, inputs, sigma), plain),
    ):
        gradient = torch.autograd.grad((scores * direction).sum(), list(held.values()), allow_unused=True, materialize_grads=True)
        found.append((scores, spikes, membranes, dict(zip(held, gradient, strict=True))))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sigma", [None, 2.0])
def test_it_is_the_plain_network_with_all_gradients(form: str, sigma: float | None, way: str) -> None:
    about = FORMS[form]
    mine, plain = both(about, sigma, inputs_of(about))
    for place, (one, other) in enumerate(zip(mine[1], plain[1], strict=True)):
        assert torch.equal(one, other)
        if place < len(about.widths) - 2:
            assert 0.01 < float(one.detach().mean()) < 0.9, "some neurons fire, not all"
    for one, other in zip(mine[2], plain[2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine[0], plain[0], rtol=1e-12, atol=1e-12)
    for name, wanted in plain[3].items():
        scale = float(wanted.abs().max())
        if "delay" in name and (sigma is None or about.max_delay == 0):
            assert scale < 1e-12 and not mine[3][name].any(), "whole delays have no gradient"
        else:
            assert scale > 1e-6, (name, "a gradient of zero would prove nothing")
            torch.testing.assert_close(mine[3][name], wanted, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "form", ["plain", "soft, strict", "refractory", "recurrent", "recurrent, axonal, refractory", "spiking outputs"]
)
def test_the_oracle_is_the_chip_with_its_own_neurons(form: str) -> None:
    """Neurons that all differ, some of them stuck: the chip's scores, and the plain network's gradients."""
    about = replace(
        FORMS[form],
        tau_mismatch=0.2,
        threshold_mismatch=0.2,
        gain_mismatch=0.2,
        stuck_fraction=0.2,
        weight_bits=8,
        weight_max=2.0,
    )
    network = spiking_network.SpikingNetwork(about, Key(5))
    with network.ledger.phase("evaluate"):
        network.program({name: Write(value) for name, value in values_of(about).items()}, key=Key(0))
        held = network.read_back(key=Key(0))
        inputs = inputs_of(about)
        scores = network.forward(inputs.numpy(), samples=np.arange(len(inputs)), key=Key(0))
    np.testing.assert_allclose(network.oracle().outputs(inputs.numpy()), scores, rtol=1e-10)
    targets = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    plain = {name: torch.tensor(one, requires_grad=True) for name, one in held.items()}
    own = network.oracle()._module.neurons
    assert len(np.unique(own[0].leak)) == len(np.unique(own[0].gain)) == 9 and np.isinf(own[0].threshold).any()
    chip = [tuple(torch.from_numpy(one) for one in each) for each in own]
    wanted = torch.nn.functional.cross_entropy(naive_delays.network(about, plain, inputs, None, chip)[0], targets)
    found = network.oracle().loss_gradient(inputs.numpy(), targets.numpy(), "cross_entropy")
    gradients = torch.autograd.grad(wanted, list(plain.values()), allow_unused=True, materialize_grads=True)
    for name, gradient in zip(plain, gradients, strict=True):
        if "delay" not in name:
            scale = float(gradient.abs().max())
            assert scale > 1e-8, name
            np.testing.assert_allclose(found[name], gradient.numpy(), rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 0.23, 1.0, 12.0])
def test_every_density_and_spread(density: float, sigma: float, way: str) -> None:
    mine, plain = both(BASE, sigma, inputs_of(BASE, density))
    torch.testing.assert_close(mine[0], plain[0], rtol=1e-12, atol=1e-12)
    for name, wanted in plain[3].items():
        torch.testing.assert_close(mine[3][name], wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max() + 1e-12))


def test_long_signals_are_cut_into_blocks() -> None:
    from inmaterio.simulators.delay_spectra import make_plan

    steps, taps = 90, 7
    plan = make_plan(steps, taps, 5, 4)
    assert plan.blocks > 2 and steps % plan.block, "several blocks, the last of them shorter"
    generator = torch.Generator().manual_seed(0)
    spikes = torch.rand(steps, 3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    kernels = torch.rand(taps, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    drive = delayed_synapses.spread_synapses(spikes, kernels, torch.zeros(4, dtype=torch.float64))
    plain = naive_delays.convolve(spikes.transpose(0, 1), kernels.permute(2, 1, 0)).transpose(0, 1)
    torch.testing.assert_close(drive, plain, rtol=1e-12, atol=1e-12)
    direction = torch.rand(drive.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((drive * direction).sum(), [spikes, kernels]),
        torch.autograd.grad((plain * direction).sum(), [spikes, kernels]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def closed_form(weight: float, delay: float, sigma: float, taps: int) -> np.ndarray:
    """dK_d/dp = w (g_d / Z) [(d - p) / s^2 - sum_m (m - p) / s^2 g_m / Z]."""
    s, d = sigma + 0.27, np.arange(taps)
    g = np.exp(-0.5 * ((d - delay) / s) ** 2)
    share = g / (g.sum() + 1e-7)
    return np.asarray(weight * share * ((d - delay) / s**2 - np.sum((d - delay) / s**2 * share)))


@pytest.mark.parametrize("sigma", [0.23, 1.0, 12.0])
def test_slope_of_a_kernel_by_its_delay(sigma: float) -> None:
    taps, step = 25, 1e-6
    generator = np.random.default_rng(3)
    weight, delay = generator.normal(size=(4, 3)), generator.uniform(0.0, 24.0, (4, 3))

    def kernels(delays: np.ndarray) -> torch.Tensor:
        return delayed_synapses.gaussian_kernels(torch.from_numpy(weight), torch.from_numpy(delays), sigma, taps)

    rise = (kernels(delay + step) - kernels(delay - step)).numpy() / (2 * step)
    wanted = np.stack([[closed_form(weight[j, i], delay[j, i], sigma, taps) for j in range(4)] for i in range(3)])
    np.testing.assert_allclose(rise, wanted.transpose(2, 0, 1), rtol=0, atol=1e-8)
    held = [torch.from_numpy(one).requires_grad_() for one in (weight, delay)]
    direction = torch.from_numpy(generator.normal(size=(taps, 3, 4)))
    mine = torch.autograd.grad((delayed_synapses.gaussian_kernels(*held, sigma, taps) * direction).sum(), held)
    plain = torch.autograd.grad((naive_delays.gaussian(*held, sigma, taps).permute(2, 1, 0) * direction).sum(), held)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    by_hand = np.einsum("dij,ijd->ij", direction.numpy(), wanted).T
    np.testing.assert_allclose(mine[1].numpy(), by_hand, rtol=0, atol=1e-8)


def test_as_the_spread_goes_to_zero_a_kernel_is_its_nearest_whole_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    weight = torch.from_numpy(generator.normal(size=(4, 3)))
    delay = torch.from_numpy(generator.integers(1, 7, (4, 3)) + generator.uniform(-0.2, 0.2, (4, 3)))
    delay[0, 0] = 3.2
    sharp = delayed_synapses.sharp_kernels(weight, delay.round(), 8)
    for spread in (0.27, 0.15, 0.1):
        monkeypatch.setattr(delayed_synapses, "SMALLEST_SPREAD", spread)
        kernels = delayed_synapses.gaussian_kernels(weight, delay, 0.0, 8)
        gap = float(((kernels - sharp).abs().amax(0) / weight.t().abs()).max())
        # nearest at most 0.2 steps away, second nearest 0.8: the latter's share; and the 1e-7 added to a sum of exp(-0.02 / s^2)
        second = 1.0 / (1.0 + np.exp((0.8**2 - 0.2**2) / (2 * spread**2)))
        assert 0.5 * second < gap < 1.1 * second + 1e-6


def test_float32_gradients_do_not_depend_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    about = replace(BASE, dtype="float32", widths=(STEPS * CHANNELS, 40, 30, 3))
    found = []
    for events in (True, False):
        monkeypatch.setattr(delayed_synapses, "by_events", lambda *_, events=events: events)
        twin: Any = make_twin(about, values_of(about))
        twin.use_gaussian(1.0)
        scores, spikes, _ = twin.record(inputs_of(about, batch=16))
        gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, torch.zeros(16).long()), list(twin.parameters()))
        found.append((spikes, gradient))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def test_the_choice_follows_the_count_of_work() -> None:
    plan = delayed_synapses.delay_spectra.make_plan(100, 25, 256, 256)
    spikes = torch.zeros(100, 4, 256)
    assert delayed_synapses.by_events(spikes, 25 * 256, delayed_synapses.RUN_RATE, plan, 256)
    spikes[:, :, ::2] = 1.0
    assert not delayed_synapses.by_events(spikes, 25 * 256, delayed_synapses.RUN_RATE, plan, 256)


@pytest.mark.parametrize("sigma", [None, 1.0])
def test_the_bits_do_not_depend_on_the_number_of_threads(sigma: float | None, way: str) -> None:
    about = replace(BASE, dtype="float32", widths=(STEPS * CHANNELS, 70, 66, 3), recurrent=True)
    found = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        twin: Any = make_twin(about, values_of(about))
        if sigma is not None:
            twin.use_gaussian(sigma)
        scores = twin(inputs_of(about, batch=33))
        gradient = torch.autograd.grad(scores[:, 0].sum(), list(twin.parameters()), allow_unused=True, materialize_grads=True)
        found.append([scores.detach(), *gradient])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_delays_are_rounded_half_to_even_to_their_resolution() -> None:
    about = replace(BASE, widths=(STEPS * CHANNELS, 3), delays="axonal", delay_resolution=2, max_delay=7, readout="mean-membrane")
    values = values_of(about)
    values["delay_1"] = np.array([0.4, 1.0, 3.0, 4.9, 5.1, 6.9])
    rounded = {**values, "delay_1": np.array([0.0, 0.0, 4.0, 4.0, 6.0, 6.0])}
    inputs = inputs_of(about)
    assert torch.equal(make_twin(about, values)(inputs), make_twin(replace(about, delay_resolution=1), rounded)(inputs))


def test_a_leak_is_what_the_decay_register_holds() -> None:
    assert BASE.held_leak(0.8) == 0.8
    assert replace(BASE, decay_bits=4).held_leak(0.8) == 1 - 3 / 16
    assert replace(BASE, decay_bits=12).held_leak(1 - 1 / 4096) == 1 - 1 / 4096


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_ideal_chip_sends_the_same_spikes(form: str, dtype: str) -> None:
    about = replace(FORMS[form], dtype=dtype, decay_bits=6)
    options = {one.name: getattr(about, one.name) for one in fields(about) if one.name != "widths"}
    chip = spiking_network.build(about.widths, chip=Key(0), **options)
    chip.attach(ledger := Ledger(), "substrate")
    with ledger.phase("initialise"):
        chip.program({name: Write(one) for name, one in values_of(about).items()}, key=Key(0))
    inputs = inputs_of(about, batch=20)
    with ledger.phase("evaluate"):
        measured = chip.run(inputs.numpy(), samples=np.arange(20), key=Key(1), membranes=True)
    scores, spikes, membranes = chip.twin().record(inputs)
    for one, other in zip(measured.spikes, spikes, strict=True):
        np.testing.assert_array_equal(one, other.detach().numpy())
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for one, other in zip((measured.scores, *measured.membranes), (scores, *membranes), strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_what_it_takes_and_what_it_refuses() -> None:
    twin: Any = make_twin(BASE, values_of(BASE))
    assert macs_per_sample(twin) > 0
    assert macs_per_sample(twin, backward=True) > macs_per_sample(twin)
    no_delays = replace(BASE, delays="none")
    plain: Any = make_twin(no_delays, values_of(no_delays))
    assert macs_per_sample(plain) == 24 * (6 * 9 + 9 * 8 + 8 * 3 + 9 + 8 + 3)
    with pytest.raises(InputError, match="sigma is -1"):
        twin.use_gaussian(-1.0)
    with pytest.raises(InputError, match="delay_1"):
        make_twin(BASE, {**values_of(BASE), "delay_1": np.zeros((2, 2))})
