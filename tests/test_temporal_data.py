"""Data with time on substrates: those with steps get the data's, all others see rows as they lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import assemble, time_options
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig
from inmaterio.experiments.data import load_data
from inmaterio.experiments.run import load_run, run

TIMED = """
from inmaterio.simulators import digital
PRESETS = {"timed": {"steps": 7}}
seen = []
def build(widths, *, chip, steps: int = 1, seconds_per_step: float = 1e-3):
    built = digital.build(widths, chip=chip, **digital.PRESETS["digital-feedforward"])
    built.told = (tuple(widths), steps, seconds_per_step)
    return built
"""


@pytest.fixture
def timed(tmp_path: Path) -> str:
    """A substrate with the options of time, whose preset has steps of its own."""
    file = tmp_path / "timed.py"
    file.write_text(TIMED)
    return f"{file}:timed"


def configured(data: str, substrate: str, **options: object) -> RunConfig:
    return RunConfig(
        data=DataConfig(name=data), substrate=SubstrateConfig(substrate, (5,), options), rule=RuleConfig("backpropagation")
    )


def test_a_substrate_with_time_is_told_the_steps_of_the_data(timed: str) -> None:
    name = "coincidence?rows=40&steps=80"
    parts = assemble(configured(name, timed))
    assert parts.chip.told == ((240, 5, 2), 80, 1e-3)
    assert assemble(configured(name, timed, steps=80, seconds_per_step=1e-6)).chip.told == ((240, 5, 2), 80, 1e-6)
    with pytest.raises(InputError) as caught:
        assemble(configured(name, timed, steps=60))
    assert f"substrate {timed!r} is set to steps = 60, and rows of data set {name!r} have 80 steps" in str(caught.value)


def test_a_chip_of_spiking_neurons_takes_counts_as_they_are() -> None:
    parts = assemble(configured("coincidence?rows=60", "spiking-ideal", max_delay=24))
    assert parts.chip.ports["input"].size == 300 and parts.encoding.scheme == "counts"
    assert parts.chip.parameters["weight_1"].shape == (5, 3)  # of channels, not of channels in every step
    np.testing.assert_array_equal(parts.batch(np.arange(60)).inputs, parts.dataset.inputs)


def test_data_without_time_are_one_step_of_amplitudes(timed: str) -> None:
    digits = load_data("digits")
    assert time_options(timed, {}, digits) == {"steps": 1}
    assert time_options(timed, {"steps": 8}, digits) == {}  # rows of pixels one after the other, if the user wants it so


@pytest.mark.parametrize("substrate", ["digital-feedforward", "hopfield-ideal", "cavity"])
def test_other_substrates_are_not_told(substrate: str) -> None:
    # a cavity has an option steps too, of its field, which are no business of the data's
    assert time_options(substrate, {}, load_data("coincidence?rows=40&steps=80")) == {}


def test_the_flat_row_goes_through_assembly_unchanged(timed: str) -> None:
    dataset = load_data("coincidence?rows=40")
    parts = assemble(configured(dataset.name, "digital-feedforward"))
    assert parts.chip.ports["input"].size == 300
    batch = parts.batch(np.array([0, 1]))
    np.testing.assert_array_equal(batch.inputs, dataset.inputs[:2])
    assert batch.inputs.dtype == np.float64


def test_element_t_channels_plus_c_is_channel_c_in_step_t() -> None:
    # In the first class channel 0 spikes first, the next ones 12 and 24 steps later.
    dataset = load_data("coincidence?rows=1")
    steps, channels = np.divmod(np.flatnonzero(dataset.inputs[0]), dataset.channels)
    assert channels.tolist() == [0, 1, 2] and np.diff(steps).tolist() == [12, 12]


@pytest.mark.parametrize("name", ["coincidence?rows=60", "yin-yang?rows=60&steps=20"])
def test_a_run_ends_on_data_with_time(name: str, tmp_path: Path) -> None:
    config = configured(name, "digital-feedforward")
    found = load_run(run(replace(config, training=replace(config.training, epochs=1, optimiser="adam")), tmp_path))
    assert found.parts.dataset.steps == load_data(name).steps
