"""Dropout in the updates of DCLS: one mask per sample and neuron for the whole sequence, and never when it predicts."""

from dataclasses import fields, replace
from typing import Any

import naive_normalised_spiking
import numpy as np
import pytest
import torch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import dcls_delay_learning as dcls
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import normalised_spiking_network, spiking_network
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.spiking_description import SpikingDescription

STEPS, CHANNELS, ROWS = 16, 6, 10
BASE = SpikingDescription((STEPS * CHANNELS, 9, 8, 3), steps=STEPS, tail_steps=4, max_delay=5, leak=0.8, dtype="float64")
FORMS = {
    "plain": BASE,
    "recurrent": replace(BASE, recurrent=True),
    "axonal, spiking outputs": replace(BASE, delays="axonal", readout="spike-count"),
    "no delays": replace(BASE, delays="none"),
}


def made(about: SpikingDescription, module: Any = spiking_network) -> tuple[Any, dict[str, np.ndarray]]:
    """A chip, plain or normalised, on a ledger, and what it was asked to hold."""
    options = {one.name: getattr(about, one.name) for one in fields(about) if one.name != "widths"}
    chip, generator = module.build(about.widths, chip=Key(0), **options), np.random.default_rng(0)
    chip.attach(Ledger(), "substrate")
    values = {
        name: generator.uniform(0.0, one.high, one.shape)
        if one.unit == "step"
        else np.full(one.shape, one.initial)
        if one.initial is not None
        else generator.normal(0.1, 0.4, one.shape)
        for name, one in chip.parameters.items()
    }
    with chip.ledger.phase("initialise"):
        chip.program({name: Write(one) for name, one in values.items()}, key=Key(0))
    return chip, values


def batch_of(rows: int = ROWS, width: int = STEPS * CHANNELS) -> Batch:
    generator = np.random.default_rng(1)
    inputs = (generator.random((rows, width)) < 0.3).astype(float)
    return Batch(inputs, np.eye(3)[generator.integers(0, 3, rows)], 3 + 2 * np.arange(rows))


def masks_of(chip: Any, batch: Batch, key: Key, monkeypatch: pytest.MonkeyPatch, **hyper: Any) -> tuple[Any, list[np.ndarray]]:
    """One update, and the masks that its twin was given."""
    given: list[np.ndarray] = []
    twin = chip.twin()
    own = twin.use_dropout

    def watched(masks: Any) -> None:
        given.extend(one.numpy().copy() for one in masks)
        own(masks)

    twin.use_dropout = watched
    with monkeypatch.context() as patched, chip.ledger.phase("train"):
        patched.setattr(type(chip), "twin", lambda _: twin)
        rule = dcls.build(substrate=chip, **{"total_updates": 100, "dropout": 0.4, **hyper})
        return rule.update(rule.init(Key(0)), batch, key), given


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sigma", [None, 2.0])
def test_spikes_that_are_not_dropped_weigh_more_and_all_gradients_follow(form: str, sigma: float | None, way: str) -> None:
    about = FORMS[form]
    chip, values = made(about)
    twin, inputs = chip.twin(), torch.from_numpy(batch_of().inputs)
    if sigma is not None:
        twin.use_gaussian(sigma)
    generator = np.random.default_rng(3)
    masks = [torch.from_numpy((generator.random((ROWS, width)) < 0.6) / 0.6) for width in about.widths[1:-1]]
    twin.use_dropout(masks)
    plain = {name: torch.tensor(one, requires_grad=True) for name, one in values.items()}
    direction = torch.from_numpy(generator.normal(size=(ROWS, 3)))
    found = twin.record(inputs)
    wanted = naive_normalised_spiking.network(about, plain, inputs, sigma, masks=masks)
    for one, other in zip(found[1], wanted[1], strict=True):
        assert torch.equal(one, other)
        assert set(one.unique().tolist()) == {0.0, 1.0}, "what a neuron sends is no more than a spike"
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=1e-12)
    held = dict(twin.named_parameters())
    mine, theirs = (
        torch.autograd.grad((one * direction).sum(), [those[name] for name in values], allow_unused=True, materialize_grads=True)
        for one, those in ((found[0], held), (wanted[0], plain))
    )
    for name, one, other in zip(values, mine, theirs, strict=True):
        if "delay" not in name or sigma is not None:
            assert float(other.abs().max()) > 1e-6, name
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))
    twin.use_dropout(())
    plainly = naive_normalised_spiking.network(about, plain, inputs, sigma)
    torch.testing.assert_close(twin(inputs), plainly[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found[0], plainly[0], rtol=1e-3)


@pytest.mark.parametrize("module", [spiking_network, normalised_spiking_network])
def test_an_update_is_with_masks_of_its_key(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chip, values = made(BASE, module)
    data = batch_of()
    update, masks = masks_of(chip, data, Key(5), monkeypatch)
    plain = {name: torch.tensor(one, requires_grad=True) for name, one in values.items()}
    between = naive_normalised_spiking.normalisations(BASE, plain) if module is normalised_spiking_network else ()
    for k, one in enumerate(between, 1):
        plain |= {f"normalisation/gain_{k}": one.weight, f"normalisation/shift_{k}": one.bias}
    inputs, tensors = torch.from_numpy(data.inputs), [torch.from_numpy(one) for one in masks]
    sigma = 2.5  # half of the largest delay
    scores = naive_normalised_spiking.network(BASE, plain, inputs, sigma, between, tensors)[0]
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(data.targets.argmax(1)))
    wanted = torch.autograd.grad(loss, [plain[name] for name in update.estimates])
    assert update.diagnostics.loss == pytest.approx(float(loss.detach()), rel=1e-10)
    for (name, one), other in zip(update.estimates.items(), wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-10 * float(other.abs().max()), err_msg=name)


def test_masks_belong_to_samples_and_have_the_right_size(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(BASE, widths=(STEPS * CHANNELS, 100, 60, 3))
    chip, _ = made(wide)
    data = batch_of(50)
    _, masks = masks_of(chip, data, Key(5), monkeypatch)
    assert [one.shape for one in masks] == [(50, 100), (50, 60)]
    for one in masks:
        kept = one != 0.0
        np.testing.assert_array_equal(one[kept], 1.0 / (1.0 - 0.4))
        # 5 standard deviations of so many draws: a false alarm in 2 million
        assert abs(kept.mean() - 0.6) < 5 * np.sqrt(0.24 / one.size)
        # a mask for every sample, and for every neuron
        assert len(np.unique(one, axis=0)) == 50 and len(np.unique(one, axis=1).T) == one.shape[1]
    assert not np.array_equal(masks[0][:, :60], masks[1])
    order = np.random.default_rng(0).permutation(50)[:20]
    fewer = Batch(data.inputs[order], data.targets[order], data.samples[order])
    for one, other in zip(masks, masks_of(chip, fewer, Key(5), monkeypatch)[1], strict=True):
        np.testing.assert_array_equal(one[order], other)
    for one, other in zip(masks, masks_of(chip, data, Key(6), monkeypatch)[1], strict=True):
        assert not np.array_equal(one, other)


def test_it_never_predicts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chip, _ = made(BASE)
    data = batch_of()
    with chip.ledger.phase("evaluate"):
        found = [
            [predict(dcls.State(), data.inputs, data.samples, Key(0)) for predict in (rule.predict, *rule.others.values())]
            for rule in (dcls.build(substrate=chip, total_updates=100, dropout=dropout) for dropout in (0.0, 0.9))
        ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    with chip.ledger.phase("train"):
        rule = dcls.build(substrate=chip, total_updates=100)
        plain = rule.update(rule.init(Key(0)), data, Key(5))
    dropped, masks = masks_of(chip, data, Key(5), monkeypatch, dropout=0.0)
    assert not masks
    np.testing.assert_array_equal(dropped.diagnostics.outputs, plain.diagnostics.outputs)
    dropped, _ = masks_of(chip, data, Key(5), monkeypatch, dropout=0.9)
    assert not np.allclose(dropped.diagnostics.outputs, plain.diagnostics.outputs, rtol=1e-3)


def test_every_masked_spike_is_a_product() -> None:
    chip, _ = made(BASE)
    twin, plain = chip.twin(), chip.twin()
    twin.use_dropout([torch.ones(ROWS, 9), torch.ones(ROWS, 8)])
    assert twin.macs_per_sample - plain.macs_per_sample == 20 * (9 + 8)
    assert twin.macs_backward_per_sample - plain.macs_backward_per_sample == 20 * (9 + 8)


def test_what_does_not_fit_is_refused() -> None:
    chip, _ = made(BASE)
    for dropout in (1.0, -0.1):
        with pytest.raises(InputError, match="dropout is"):
            dcls.build(substrate=chip, total_updates=10, dropout=dropout)
    for masks in ([torch.ones(ROWS, 9)], [torch.ones(ROWS, 9), torch.ones(ROWS, 9)], [torch.ones(ROWS, 9), torch.ones(2, 8)]):
        with pytest.raises(InputError, match=r"masks have shapes .* hidden layers of \(9, 8\)"):
            chip.twin().use_dropout(masks)
