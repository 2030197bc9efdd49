"""Configurations: TOML there and back, and one clear line for every way to get it wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import (
    DataConfig,
    RuleConfig,
    RunConfig,
    SubstrateConfig,
    TrainingConfig,
    load_config,
    parse_config,
    to_toml,
)
from inmaterio.experiments.run_hash import config_hash

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
configurations = st.builds(
    RunConfig,
    data=st.builds(DataConfig, name=words, split_seed=st.integers(0, 9), train_limit=st.none() | st.integers(1, 99)),
    substrate=st.builds(
        SubstrateConfig,
        name=words,
        hidden=st.lists(st.integers(1, 99), max_size=3).map(tuple),
        options=st.dictionaries(words, values, max_size=3),
    ),
    rule=st.builds(RuleConfig, name=words, hyper=st.dictionaries(words, values, max_size=3)),
    training=st.builds(
        TrainingConfig,
        epochs=st.integers(3, 9),
        rates=st.none() | st.floats(1e-9, 10) | st.lists(st.floats(1e-9, 10), max_size=3).map(tuple),
        probe_epochs=st.none() | st.lists(st.integers(0, 3), max_size=3).map(tuple),
        write_mode=st.sampled_from(["master copy", "in place"]),
    ),
    partners=st.dictionaries(words, st.builds(SubstrateConfig, chip=st.integers(0, 3)), max_size=2),
    seed=st.integers(0, 2**40),
)


@given(configurations)
def test_toml_holds_the_whole_configuration(config: RunConfig) -> None:
    assert parse_config(to_toml(config)) == config


def test_an_empty_file_is_a_complete_configuration() -> None:
    assert parse_config("") == RunConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.epoch = 1", ["training.epoch:", "unknown key 'epoch'", "nearest: epochs"]),
        ("sed = 1", ["sed:", "unknown key 'sed'", "nearest: seed"]),
        ("partners.model.chp = 1", ["partners.model.chp:", "nearest: chip"]),
        ("training.epochs = 'many'", ["training.epochs:", "integer", "'many'"]),
        ("training.epochs = 0", ["training.epochs is 0", "[1, inf)"]),
        ("seed = true", ["seed:", "integer", "True"]),
        ("seed = -1", ["seed is -1"]),
        ("training.rates = [0.1, 'fast']", ["training.rates", "number", "fast"]),
        ("training.rates = 0.0", ["training.rates is 0", "(0, inf)"]),
        ("substrate.hidden = [64, 'x']", ["substrate.hidden[1]:", "integer", "'x'"]),
        ("substrate.hidden = [0]", ["substrate.hidden is 0 nodes"]),
        ("training = 3", ["training:", "got 3"]),
        ("training.write_mode = 'inplace'", ["training.write_mode 'inplace'", "nearest: in place"]),
        ("training.optimiser = 'adamm'", ["training.optimiser 'adamm'", "nearest: adam"]),
        ("[training]\nwrite_mode = 'in place'\nmomentum = 0.9", ["training.write_mode is 'in place'", "momentum"]),
        ("[training]\nfit_on = 'train+validation'\nevaluate_on = 'validation'", ["training.evaluate_on", "trained on"]),
        ("[training]\nepochs = 2\nprobe_epochs = [3]", ["training.probe_epochs is 3", "[0, 2]"]),
        ("data.validation_fraction = 1.0", ["data.validation_fraction is 1", "[0, 1)"]),
        ("data.train_limit = 0", ["data.train_limit is 0 rows"]),
        ("seed = ", ["not TOML"]),
    ],
)
def test_bad_configuration_names_the_key(text: str, said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(text, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml") and "\n" not in message
    assert all(word in message for word in said), message


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read configuration .*binary\.toml"):
        load_config(tmp_path / "binary.toml")


def test_hash_follows_everything_that_decides_the_bits(tmp_path: Path) -> None:
    config = RunConfig()
    assert config_hash(config) == config_hash(parse_config(to_toml(config)))
    changed = [
        replace(config, seed=1),
        replace(config, substrate=replace(config.substrate, chip=1)),
        replace(config, training=replace(config.training, rate_factor=2.0)),
    ]
    assert len({config_hash(one) for one in (config, *changed)}) == 4
    file = tmp_path / "mine.py"
    file.write_text("a = 1")
    own = replace(config, rule=RuleConfig(f"{file}:mine"))
    before = config_hash(own)
    file.write_text("a = 2")
    assert config_hash(own) != before
    file.unlink()
    with pytest.raises(InputError, match=r"cannot read .*mine\.py"):
        config_hash(own)


def test_probes_are_at_the_start_after_one_in_the_middle_and_at_the_end() -> None:
    assert TrainingConfig(epochs=20).probes() == (0, 1, 10, 20)
    assert TrainingConfig(epochs=1).probes() == (0, 1)
    assert TrainingConfig(probe_epochs=()).probes() == ()
