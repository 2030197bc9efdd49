"""Configurations: TOML there and back, and one clear line for every way to get it wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.randomness import Key
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
from inmaterio.experiments.own_files import load_module
from inmaterio.experiments.registry import check_settings, find_rule, find_substrate
from inmaterio.experiments.run_directory import keep_own_files
from inmaterio.experiments.run_hash import config_hash, data_folder, with_data_folder
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.option_types import check_option_types

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


def test_hash_is_of_what_a_file_holds_not_of_where_it_is(tmp_path: Path) -> None:
    config, found = RunConfig(), set()
    for folder in ("here", "there"):
        file = tmp_path / folder / f"{folder}.py"
        file.parent.mkdir()
        file.write_text("a = 1")
        found.add(config_hash(replace(config, rule=RuleConfig(f"{file}:mine"))))
    assert len(found) == 1
    assert config_hash(replace(config, rule=RuleConfig(f"{file}:other"))) not in found
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_text("1")
    data = replace(config, data=DataConfig(f"idx:{tmp_path / 'data'}"))
    before = config_hash(data)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert config_hash(replace(config, data=DataConfig(f"idx:{tmp_path / 'moved'}"))) == before
    (tmp_path / "moved" / "rows").write_text("2")
    assert config_hash(replace(config, data=DataConfig(f"idx:{tmp_path / 'moved'}"))) != before


def test_hash_of_recordings_is_of_the_sounds_and_the_options(tmp_path: Path) -> None:
    def named(folder: str, options: str = "") -> str:
        return config_hash(RunConfig(data=DataConfig(f"wav:{tmp_path / folder}{options}")))

    sound = tmp_path / "data" / "ae" / "m01.wav"
    sound.parent.mkdir(parents=True)
    sound.write_text("1")
    before, with_options = named("data"), named("data", "?rate=8000")
    assert before != with_options
    (tmp_path / "data" / "README").write_text("no sound")
    (tmp_path / "data").rename(tmp_path / "moved")
    assert (named("moved"), named("moved", "?rate=8000")) == (before, with_options)
    (tmp_path / "moved" / "ae" / "m01.wav").write_text("2")
    assert named("moved") != before
    config = RunConfig(data=DataConfig(f"wav:{tmp_path / 'moved'}?rate=8000"))
    assert data_folder(config) == tmp_path / "moved"
    assert with_data_folder(config, "/there").data.name == "wav:/there?rate=8000"
    assert keep_own_files(config, tmp_path).data.name == config.data.name


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for value in (1, 2):  # of the same size, in the same second
        file.write_text(f"a = {value}")
        assert load_module(file).a == value
    assert load_module(file) is load_module(file)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"], "no cache is left beside it"


def test_files_are_looked_for_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    for file in ("inner/config.toml", "inner/mine.py", "mine.py", "other.py"):
        (tmp_path / file).write_text('rule.name = "mine.py:a"\nsubstrate.name = "other.py:b"' if "toml" in file else "")
    assert load_config(Path("inner/config.toml")).rule.name == "mine.py:a"
    found = load_config(Path("inner/config.toml"), locate=True)
    assert found.rule.name == f"{tmp_path / 'inner' / 'mine.py'}:a"
    assert found.substrate.name == "other.py:b", "not there: as seen from the current folder"


@pytest.mark.parametrize("find", [find_rule, find_substrate])
@pytest.mark.parametrize("name", ["mine.py:", "mine.py: ", "mine.py"])
def test_a_file_needs_a_name_after_it(find: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"has no name after the file; expected FILE\.py:NAME"):
        find(name)


EP = RuleConfig("equilibrium-propagation")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (RuleConfig(EP.name, {"shared_noise": "no"}), "rule.hyper.shared_noise is 'no'; expected true or false"),
        (RuleConfig(EP.name, {"shared_noise": 1}), "rule.hyper.shared_noise is 1; expected true or false"),
        (RuleConfig(EP.name, {"free_steps": 3.5}), "rule.hyper.free_steps is 3.5; expected a whole number"),
        (RuleConfig(EP.name, {"free_steps": True}), "rule.hyper.free_steps is True; expected a whole number"),
        (RuleConfig(EP.name, {"beta": "much"}), "rule.hyper.beta is 'much'; expected a number"),
        (RuleConfig(EP.name, {"tolerance": [1.0]}), "rule.hyper.tolerance is [1.0]; expected a number"),
        (RuleConfig(EP.name, {"variant": 3}), "rule.hyper.variant is 3; expected text"),
        (
            RuleConfig(EP.name, {"bta": 0.1}),
            "rule.hyper.bta: unknown hyperparameter of equilibrium-propagation: 'bta'; nearest: beta",
        ),
        (RuleConfig(EP.name, {"substrate": 1}), "rule.hyper.substrate cannot be set here; expected one of beta, "),
        (SubstrateConfig(options={"widths": [3]}), "substrate.options.widths cannot be set here"),
        (SubstrateConfig(options={"chip": 3}), "substrate.options.chip cannot be set here"),
        (
            SubstrateConfig("digital-feedforward", options={"activaton": "relu"}),
            "substrate.options.activaton: unknown option of digital-feedforward: 'activaton'; nearest: activation",
        ),
        (SubstrateConfig("digital-feedforward", options={"dtype": 32}), "substrate.options.dtype is 32; expected text"),
    ],
)
def test_options_of_another_type_or_name_are_refused_with_their_path(changed: RuleConfig | SubstrateConfig, said: str) -> None:
    config = replace(RunConfig(), **{"rule" if isinstance(changed, RuleConfig) else "substrate": changed})
    with pytest.raises(InputError) as caught:
        check_settings(config)
    assert said in str(caught.value)
    partner = replace(RunConfig(), partners={"solver": changed} if isinstance(changed, SubstrateConfig) else {})
    if partner.partners:
        with pytest.raises(InputError, match=r"^partners\.solver\.options\."):
            check_settings(partner)


def test_options_that_fit_pass() -> None:
    hyper = {"beta": 1, "free_steps": 3, "tolerance": None, "shared_noise": True}
    check_settings(replace(RunConfig(), rule=RuleConfig(EP.name, hyper)))
    options = {"bias": False, "levels": None, "input_bits": 8, "g_max": 1e-6, "weight_max": 2, "wiring": "separate"}
    check_option_types(HopfieldDescription, options, "substrate.options", reserved=("widths",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bias": 3}, "here.bias is 3; expected true or false"),
        ({"levels": 2.5}, "here.levels is 2.5; expected a whole number"),
        ({"devise_spread": 0.1}, "here.devise_spread: unknown option 'devise_spread'; nearest: device_spread"),
        ({"widths": (3,)}, "here.widths cannot be set here"),
    ],
)
def test_fields_of_a_dataclass_say_what_options_are(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_option_types(HopfieldDescription, options, "here", reserved=("widths",))
    assert said in str(caught.value)


def test_types_of_containers_and_of_defaults() -> None:
    def taker(
        *,
        sizes: tuple[int, ...] = (),
        pair: tuple[int, str] = (1, "a"),
        kind: Literal["a", "b"] = "a",
        gain=2.0,
        free=None,
        **more: Any,
    ) -> None: ...

    good = {"sizes": [1, 2], "pair": [1, "a"], "kind": "b", "gain": 3, "free": "anything", "extra": 1, "steps": 4}
    check_option_types(taker, good, "o", defaults={"steps": 3})
    for bad, expected in (
        ({"sizes": [1, 2.5]}, "a list, each a whole number"),
        ({"sizes": 3}, "a list, each a whole number"),
        ({"pair": [1]}, "a list of 2: a whole number, text"),
        ({"kind": "c"}, "'a' or 'b'"),
        ({"gain": "x" * 99}, "a number"),
        ({"steps": 0.5}, "a whole number"),
    ):
        with pytest.raises(InputError, match=f"expected {expected}$") as caught:
            check_option_types(taker, bad, "o", defaults={"steps": 3})
        assert len(str(caught.value)) < 110


def test_a_module_says_what_its_options_are(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from inmaterio.simulators.digital import build as build_digital\n"
        "PRESETS = {'mine': {}}\n"
        "def OPTIONS(*, soft: bool = False, gain: float = 1.0): ...\n"
        "def build(widths, *, chip, **options):\n    return build_digital(widths, chip=chip)\n"
    )
    entry = find_substrate(f"{file}:mine")
    assert entry.build((2, 2), chip=Key(0), soft=True, gain=2).ports["input"].size == 2
    for options, said in (({"soft": 1}, "expected true or false"), ({"gian": 1.0}, "nearest: gain")):
        with pytest.raises(InputError, match=said):
            entry.build((2, 2), chip=Key(0), **options)


def test_sizes_that_cannot_be_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(
        InputError, match=r"^widths 64-100000000-10 take at least 237 GB, and .* GB of memory are there; expected"
    ):
        find_substrate("hopfield-ideal").build((64, 10**8, 10), chip=Key(0))
    with pytest.raises(InputError, match="take at least"):
        find_substrate("digital-feedforward").build((64, 10**30, 10), chip=Key(0))


def test_rows_with_time_are_coupled_a_step_at_a_time() -> None:
    # all 100 steps at once would be 224 GB
    network = find_substrate("spiking-ideal").build((100 * 7_000, 100, 2), chip=Key(0), steps=100, seconds_per_step=1e-3)
    assert network.parameters["weight_1"].shape == (100, 7_000)
    with pytest.raises(InputError, match="take at least"):
        find_substrate("spiking-ideal").build((100 * 10**9, 100, 2), chip=Key(0), steps=100, seconds_per_step=1e-3)


def test_what_runs_out_of_memory_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("PRESETS = {'mine': {}}\ndef build(widths, *, chip):\n    raise MemoryError\n")
    with pytest.raises(InputError, match="not enough memory for widths 2-3"):
        find_substrate(f"{file}:mine").build((2, 3), chip=Key(0))


def test_probes_are_at_the_start_after_one_in_the_middle_and_at_the_end() -> None:
    assert TrainingConfig(epochs=20).probes() == (0, 1, 10, 20)
    assert TrainingConfig(epochs=1).probes() == (0, 1)
    assert TrainingConfig(probe_epochs=()).probes() == ()
