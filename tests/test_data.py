"""Data sets against what is published about them, and splits against what a split must be."""

import gzip
import logging
import os
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mnist1d.data import make_dataset
from scipy.io import wavfile

from inmaterio.devices.validation import InputError
from inmaterio.experiments import data
from inmaterio.experiments.data import DATA, Dataset, Split, cache_folder, load_data, split

Draws = tuple[float, float, float, float]

FASHION_MNIST = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
"""Where Debian's package dataset-fashion-mnist puts it."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def draw() -> Draws:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


@pytest.fixture(scope="module")
def making(cache: Path) -> tuple[Dataset, Draws, Draws]:
    """mnist1d, and what the global generators drew without and with its making between two draws."""

    def seed_and_draw() -> None:
        random.seed(5)
        np.random.seed(6)
        torch.manual_seed(7)
        draw()  # one normal each: both generators now hold another one back, which must survive too

    seed_and_draw()
    expected = draw()
    seed_and_draw()
    made = load_data("mnist1d", cache=cache)
    return made, expected, draw()


@pytest.fixture(scope="module")
def mnist1d(making: tuple[Dataset, Draws, Draws]) -> Dataset:
    return making[0]


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Eight training and four test images of 2 x 3 pixels, half the files compressed."""
    for part, count in (("train", 8), ("t10k", 4)):
        images = struct.pack(">IIII", 0x803, count, 2, 3) + bytes(range(6 * count))
        labels = struct.pack(">II", 0x801, count) + bytes(i % 3 for i in range(count))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return tmp_path


def whole(found: Split) -> list[int]:
    return sorted(np.concatenate([found.train, found.validation, found.test]).tolist())


def parts_of(found: Dataset, train: int, total: int) -> dict[str, np.ndarray]:
    """Rows as the package mnist1d names them."""
    inputs, labels = found.inputs[:total], found.answers[:total]
    return {"x": inputs[:train], "x_test": inputs[train:], "y": labels[:train], "y_test": labels[train:]}


def test_digits_are_the_published_ones(digits: Dataset) -> None:
    # E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits, optdigits.names: the test part's class counts.
    assert digits.inputs.shape == (1797, 64)
    assert np.bincount(digits.answers.astype(int)).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 16)
    assert (digits.features, digits.outputs, digits.classes, len(digits)) == (64, 10, 10, 1797)
    assert digits.inputs.dtype == np.float64 and digits.answers.dtype == np.int64


def test_diabetes_is_the_published_one() -> None:
    # B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Ann. Stat. 32, 407 (2004): 442 patients, 10 features, response 25 to 346.
    found = load_data("diabetes")
    assert found.inputs.shape == (442, 10)
    assert found.targets is not None and found.targets.shape == (442, 1) and found.labels is None
    assert (found.targets.min(), found.targets.max()) == (25, 346)
    assert found.targets.mean() == pytest.approx(152.133, abs=1e-3)
    assert (found.outputs, found.classes, found.task) == (1, 0, "regression")
    assert len(split(found, split_seed=0).test) == 89


def test_mnist1d_is_the_published_one(mnist1d: Dataset) -> None:
    # S. Greydanus, D. Kobak, "Scaling down deep learning with MNIST-1D" (2020): 4000 + 1000 rows of 40 points, 10 classes alike;
    # the package scales all values together to mean 0 and standard deviation 1.
    assert mnist1d.inputs.shape == (5000, 40)
    assert np.bincount(mnist1d.answers.astype(int)).tolist() == [500] * 10
    assert mnist1d.inputs.mean() == pytest.approx(0, abs=1e-12)
    assert mnist1d.inputs.std() == pytest.approx(1, abs=1e-12)
    assert mnist1d.default_split is not None
    np.testing.assert_array_equal(mnist1d.default_split.train, np.arange(4000))
    np.testing.assert_array_equal(mnist1d.default_split.test, np.arange(4000, 5000))


def test_mnist1d_is_what_the_package_makes(mnist1d: Dataset) -> None:
    made = make_dataset()
    np.testing.assert_array_equal(mnist1d.inputs, np.concatenate([made["x"], made["x_test"]]))
    np.testing.assert_array_equal(mnist1d.labels, np.concatenate([made["y"], made["y_test"]]))


def test_making_mnist1d_leaves_the_global_generators_alone(making: tuple[Dataset, Draws, Draws]) -> None:
    _, expected, found = making
    assert found == expected
    # This release of the package leaves torch alone; another may not.
    torch.manual_seed(7)
    undisturbed = float(torch.rand(()))
    torch.manual_seed(7)
    with data._global_generators_kept():
        torch.manual_seed(8)
    assert float(torch.rand(())) == undisturbed


def test_the_cache_is_used_and_a_damaged_one_made_again(
    mnist1d: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = cache.iterdir()
    good = file.read_bytes()
    arrays = parts_of(mnist1d, 4000, 5000)
    made: list[int] = []
    monkeypatch.setattr(data, "_make_mnist1d", lambda: made.append(1) or arrays)
    np.testing.assert_array_equal(load_data("mnist1d", cache=cache).inputs, mnist1d.inputs)
    assert not made and not caplog.records
    for damaged in (b"", good[:-1], good[: len(good) // 2] + b"\xff" + good[len(good) // 2 + 1 :], b"no line end"):
        made.clear()
        caplog.clear()
        assert damaged != good
        file.write_bytes(damaged)
        np.testing.assert_array_equal(load_data("mnist1d", cache=cache).inputs, mnist1d.inputs)
        assert made == [1]
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert f"{file} is damaged" in caplog.text
        assert list(cache.iterdir()) == [file]
        np.testing.assert_array_equal(load_data("mnist1d", cache=cache).inputs, mnist1d.inputs)
        assert made == [1]  # what was written serves the next time


def test_a_cache_that_cannot_be_written_costs_time_only(
    mnist1d: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arrays = parts_of(mnist1d, 3, 5)
    monkeypatch.setattr(data, "_make_mnist1d", lambda: arrays)
    (tmp_path / "file").write_text("a file where the folder should be")
    found = load_data("mnist1d", cache=tmp_path / "file" / "cache")
    np.testing.assert_array_equal(found.inputs, mnist1d.inputs[:5])
    assert "cannot be written" in caplog.text


def test_the_cache_lies_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "inmaterio" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "home" / ".cache" / "inmaterio" / "data"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "home" / "Library" / "Caches" / "inmaterio" / "data"


def test_an_idx_folder_keeps_its_split(idx_folder: Path) -> None:
    found = load_data(f"idx:{idx_folder}")
    np.testing.assert_array_equal(found.inputs[1], range(6, 12))
    np.testing.assert_array_equal(found.inputs[8], range(6))
    np.testing.assert_array_equal(found.answers, [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 0])
    assert (found.features, found.classes, found.target_names) == (6, 3, ("0", "1", "2"))
    parts = split(found, split_seed=4, validation_fraction=0.25)
    np.testing.assert_array_equal(parts.test, [8, 9, 10, 11])
    assert (len(parts.train), len(parts.validation)) == (6, 2)
    assert whole(parts) == list(range(12))
    limited = split(found, split_seed=4, validation_fraction=0.25, train_limit=4, test_limit=2)
    assert sorted(limited.train_and_validation.tolist()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(limited.test, [8, 9])


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason=f"{FASHION_MNIST} is not there (Debian: dataset-fashion-mnist)")
def test_fashion_mnist_is_the_published_one() -> None:
    # H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747: 60000 + 10000 images of 28 x 28, ten balanced classes. Mean and
    # standard deviation of the training pixels are those its users normalise with, .2860 and .3530 of full scale.
    found = load_data(f"idx:{FASHION_MNIST}")
    assert found.inputs.shape == (70000, 784)
    assert np.bincount(found.answers[:60000].astype(int)).tolist() == [6000] * 10
    assert np.bincount(found.answers[60000:].astype(int)).tolist() == [1000] * 10
    assert found.inputs[:60000].mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert found.inputs[:60000].std() / 255 == pytest.approx(0.3530, abs=5e-5)
    assert [len(part) for part in (split(found, split_seed=0).train, split(found, split_seed=0).test)] == [48000, 10000]


def test_the_split_of_the_digits_is_the_agreed_one(digits: Dataset) -> None:
    order = np.random.default_rng(0).permutation(1797)
    found = split(digits, split_seed=0)
    np.testing.assert_array_equal(found.train_and_validation, order[:1437])
    np.testing.assert_array_equal(found.test, order[1437:])
    assert [len(found.train), len(found.validation), len(found.test)] == [1150, 287, 360]
    limited = split(digits, split_seed=0, train_limit=100, test_limit=10)
    np.testing.assert_array_equal(limited.train_and_validation, order[:100])
    np.testing.assert_array_equal(limited.test, order[1437:1447])


def test_the_split_of_mnist1d_keeps_its_test_rows(mnist1d: Dataset) -> None:
    first, second = split(mnist1d, split_seed=1), split(mnist1d, split_seed=2)
    order = np.random.default_rng(1).permutation(4000)
    np.testing.assert_array_equal(first.train, order[:3200])
    np.testing.assert_array_equal(first.validation, order[3200:])
    np.testing.assert_array_equal(first.test, np.arange(4000, 5000))
    np.testing.assert_array_equal(second.test, first.test)
    assert not np.array_equal(second.train, first.train)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 60), published=st.booleans(), seed=st.integers(0, 2**40), fraction=st.floats(0, 0.6))
def test_any_split_is_disjoint_covers_and_comes_again(rows: int, published: bool, seed: int, fraction: float) -> None:
    order = np.arange(rows)
    given_split = Split(order[: rows // 2], order[:0], order[rows // 2 :]) if published else None
    dataset = Dataset("own", np.zeros((rows, 1)), "regression", targets=np.zeros((rows, 1)), default_split=given_split)
    try:
        found = split(dataset, split_seed=seed, validation_fraction=fraction)
    except InputError as error:
        assert rows <= 4 and "0 rows for training" in str(error)
        return
    assert whole(found) == list(range(rows))
    kept = len(found.train) + len(found.validation)
    assert kept == (rows // 2 if published else int(0.8 * rows + 1e-9))
    assert abs(len(found.validation) - fraction * kept) <= 0.5
    again = split(dataset, split_seed=seed, validation_fraction=fraction)
    np.testing.assert_array_equal(again.train, found.train)


def grouped(rows: int, groups: int, default_split: Split | None = None) -> Dataset:
    labels = np.arange(rows) % 2
    names = 7 * (np.arange(rows) % groups) - 3  # any whole numbers
    inputs = np.zeros((rows, 1))
    return Dataset("own", inputs, "classification", labels=labels, classes=2, groups=names, default_split=default_split)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(2, 12),
    per_group=st.integers(1, 5),
    seed=st.integers(0, 2**40),
    fraction=st.floats(0, 0.6),
    limit=st.none() | st.integers(1, 30),
)
def test_groups_stay_whole(groups: int, per_group: int, seed: int, fraction: float, limit: int | None) -> None:
    dataset = grouped(groups * per_group, groups)
    try:
        found = split(dataset, split_seed=seed, validation_fraction=fraction, train_limit=limit)
    except InputError as error:
        assert "0 rows for training" in str(error) and f"in {groups} groups" in str(error)
        return
    assert dataset.groups is not None
    sides = [set(dataset.groups[part].tolist()) for part in (found.train, found.validation, found.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert len(sides[2]) == groups - 4 * groups // 5
    if limit is None:
        assert whole(found) == list(range(len(dataset)))
        assert len(sides[1]) == round(fraction * (4 * groups // 5))
    else:
        assert len(found.train_and_validation) == min(limit, per_group * (4 * groups // 5))
    again = split(dataset, split_seed=seed, validation_fraction=fraction, train_limit=limit)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(found, part))


def test_groups_of_a_published_split_stay_whole() -> None:
    order = np.arange(40)
    published = Split(order[order % 10 < 7], order[:0], order[order % 10 >= 7])
    found = split(grouped(40, 10, published), split_seed=3, validation_fraction=0.3)
    np.testing.assert_array_equal(found.test, published.test)
    assert whole(found) == list(range(40))
    assert (len(found.train), len(found.validation)) == (20, 8)  # 5 and 2 of 7 groups of 4 rows
    assert not set((found.train % 10).tolist()) & set((found.validation % 10).tolist())
    with pytest.raises(InputError, match="published split of own has group -3 on both sides; expected whole groups"):
        grouped(40, 10, Split(order[:20], order[:0], order[20:]))


def test_the_seed_of_a_grouped_split_chooses_the_groups() -> None:
    dataset = load_data("vowels-peterson-barney")
    assert dataset.groups is not None
    tests = {tuple(np.unique(dataset.groups[split(dataset, split_seed=seed).test])) for seed in range(5)}
    assert len(tests) == 5 and {len(test) for test in tests} == {16}


def test_synthetic_vowels_are_labelled_so() -> None:
    found = load_data("vowels-synthetic")
    assert found.inputs.shape == (279, 1000) and found.kind == "waveform" and found.target_names == ("ae", "eh", "iy")
    assert found.name == "vowels-synthetic" and "semi-synthetic" in found.notes[0] and "semi-synthetic" in DATA[found.name].about
    np.testing.assert_allclose(np.sum(found.inputs**2, axis=1), 1.0, rtol=1e-12)
    parts = split(found, split_seed=0)
    assert found.groups is not None
    assert [len(np.unique(found.groups[part])) for part in (parts.train, parts.validation, parts.test)] == [59, 15, 19]
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [177, 45, 57]
    other = load_data("vowels-synthetic?rate=5000&samples=200&vowels=iy,uw&repetitions=2")
    assert other.inputs.shape == (372, 200) and other.target_names == ("iy", "uw")
    assert other.name == "vowels-synthetic?rate=5000&samples=200&vowels=iy,uw&repetitions=2" and "5000 Hz" in other.feature_unit


def test_the_vowels_of_peterson_and_barney_are_the_published_ones() -> None:
    # G. E. Peterson, H. L. Barney, J. Acoust. Soc. Am. 24, 175 (1952): 76 speakers, 10 vowels, twice each.
    found = load_data("vowels-peterson-barney")
    assert found.inputs.shape == (1520, 4) and found.classes == 10 and found.kind == "features"
    assert np.bincount(found.answers.astype(int)).tolist() == [152] * 10
    assert found.groups is not None and np.bincount(found.groups).tolist() == [20] * 76
    hertz = 1000 * 2**found.inputs
    np.testing.assert_allclose(hertz, np.round(hertz), rtol=1e-12)  # the table holds whole numbers
    np.testing.assert_allclose(hertz[0], [160, 240, 2280, 2850], rtol=1e-12)  # first row of the table: a man's heed
    assert found.target_names[int(found.answers[0])] == "iy"


def test_parity_is_parity_and_nothing_less_tells_it() -> None:
    found = load_data("parity-3")
    assert found.inputs.shape == (600, 3) and found.kind == "bits" and found.target_names == ("even", "odd")
    bits = found.inputs > 0
    np.testing.assert_array_equal(found.answers, bits.sum(axis=1) % 2)
    assert np.bincount(bits @ [1, 2, 4]).tolist() == [75] * 8
    assert (np.where(bits, 1, -1) - found.inputs).std() == pytest.approx(0.1, rel=0.1)
    signs = np.where(bits, 1.0, -1.0)
    pairs = [signs[:, i] * signs[:, j] for i in range(3) for j in range(i)]
    # No product of fewer than three bits goes with the answer: a linear or quadratic form is at chance.
    np.testing.assert_array_equal(np.column_stack([*signs.T, *pairs]).T @ (2 * found.answers - 1), 0)
    np.testing.assert_array_equal(signs.prod(axis=1), 2 * found.answers - 1)
    with_reference = load_data("parity-3?reference=1&rows=80&noise=0.5")
    assert with_reference.inputs.shape == (80, 4) and (with_reference.inputs[:, 3] == 1).all()
    exact = load_data("parity-3?noise=0&rows=80").inputs
    np.testing.assert_array_equal(np.abs(exact), 1)
    np.testing.assert_allclose((with_reference.inputs[:, :3] - exact) * 0.2, found.inputs[:80] - exact, rtol=1e-9, atol=1e-12)


def test_a_wav_folder_is_grouped_by_speaker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = np.arange(1600) / 16_000
    for speaker in range(10):
        for vowel, hertz in (("ae", 700), ("iy", 300), ("uw", 320)):
            values = np.round(9000 * np.sin(2 * np.pi * (hertz + 5 * speaker) * at)).astype(np.int16)
            wavfile.write(tmp_path / f"m{speaker:02d}{vowel}.wav", 16_000, values)
    name = f"wav:{tmp_path}?samples=500&rate=8000&classes=ae,iy"
    found = load_data(name)
    assert (found.name, found.inputs.shape, found.target_names, found.kind) == (name, (20, 500), ("ae", "iy"), "waveform")
    assert found.notes == ("20 of 20 recordings were resampled from 16000 Hz to 8000 Hz",)
    assert [record.getMessage() for record in caplog.records] == [f"wav:{tmp_path}: {found.notes[0]}"]
    parts = split(found, split_seed=0)
    assert found.groups is not None
    sides = [set(found.groups[part].tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(side) for side in sides] == [6, 2, 2] and len(set.union(*sides)) == 10
    assert load_data(f"wav:{tmp_path}").inputs.shape == (30, 1000)


def test_bad_requests_are_told_in_one_line(digits: Dataset, tmp_path: Path) -> None:
    column, labels = np.zeros((3, 1)), np.array([0, 1, 2])
    for action, message in (
        (lambda: load_data("digit"), "unknown data set 'digit'; nearest: digits"),
        (lambda: load_data("mnist-1d"), "unknown data set 'mnist-1d'; nearest: mnist1d"),
        (lambda: load_data("digits:folder"), "unknown data set 'digits:folder'; nearest: digits"),
        (lambda: load_data("idx:"), "data set 'idx:' names no folder; expected idx:FOLDER"),
        (lambda: load_data("idx"), "data set 'idx' names no folder"),
        (lambda: load_data(f"idx:{tmp_path}"), f"{tmp_path} has no train images; looked for train-images-idx3-ubyte"),
        (lambda: load_data("idx:~nobody-of-this-name/mnist"), "data set idx:~nobody-of-this-name/mnist: "),
        (lambda: load_data("wav"), "data set 'wav' names no folder; expected wav:FOLDER, such as wav:/data/vowels"),
        (lambda: load_data("wav:?rate=1"), "data set 'wav:?rate=1' names no folder"),
        (lambda: load_data(f"wav:{tmp_path}"), f"{tmp_path} has no .wav files and no folders; expected"),
        (lambda: load_data(f"wav:{tmp_path}?rates=1"), "unknown option of wav:FOLDER: 'rates'; nearest: rate"),
        (lambda: load_data(f"wav:{tmp_path}?rate=fast"), "option rate is 'fast'; expected a whole number such as 10000"),
        (lambda: load_data(f"wav:{tmp_path}?rate=1&rate=2"), "option 'rate=2' of wav:FOLDER; expected rate=VALUE, once"),
        (lambda: load_data("wav:~nobody-of-this-name/vowels"), "data set wav:~nobody-of-this-name/vowels: "),
        (lambda: load_data("vowels"), "unknown data set 'vowels'; nearest: vowels-synthetic"),
        (lambda: load_data("vowels-synthetic?vowels=ae,ei"), "unknown vowel 'ei'"),
        (lambda: load_data("vowels-synthetic?rate=100"), "sampling rate is 100 Hz; expected a number in [5000, 1e+06] Hz"),
        (lambda: load_data("digits?rows=8"), "unknown data set 'digits?rows=8'; nearest: digits"),
        (lambda: load_data("parity-3?rows=12"), "option rows of parity-3 is 12; expected a multiple of 8"),
        (lambda: load_data("parity-3?noise="), "option 'noise=' of parity-3; expected noise=VALUE"),
        (lambda: load_data("parity-3?noise=loud"), "option noise of parity-3 is 'loud'; expected a number"),
        (lambda: load_data("parity-3?noise=nan"), "option noise of parity-3 is nan; expected a number in [0, 10]"),
        (lambda: load_data("parity-3?reference=2"), "option reference of parity-3 is 2; expected 0 or 1"),
        (
            lambda: split(grouped(4, 1), split_seed=0),
            "data set own of 4 rows in 1 groups leaves 0 rows for training and 4 for test",
        ),
        (lambda: split(digits, split_seed=-1), "split_seed is -1; expected a number in [0, inf)"),
        (lambda: split(digits, split_seed=0.5), "split_seed is 0.5; expected a whole number"),
        (lambda: split(digits, split_seed=0, validation_fraction=1.0), "validation_fraction is 1; expected a number in [0, 1)"),
        (lambda: split(digits, split_seed=0, train_limit=0), "train_limit is 0; expected"),
        (lambda: split(digits, split_seed=0, test_limit=2.5), "test_limit is 2.5; expected a whole number of at least 1"),
        (lambda: split(digits, split_seed=0, train_limit=1, validation_fraction=0.6), "0 rows for training and 360 for test"),
        (lambda: Dataset("own", column, "clustering"), "unknown task 'clustering'"),
        (lambda: Dataset("own", column, "classification"), "data set own is for classification; expected labels and no targets"),
        (lambda: Dataset("own", column, "regression", labels=labels), "data set own is for regression; expected targets"),
        (lambda: Dataset("own", column, "classification", labels=labels, classes=2), "labels is 2 at (2,); expected at most 1"),
        (lambda: Dataset("own", column[:2], "classification", labels=labels, classes=3), "labels has shape (3,); expected (2,)"),
        (lambda: Dataset("own", column, "regression", targets=column, groups=labels[:2]), "groups has shape (2,); expected (3,)"),
        (lambda: Dataset("own", column, "regression", targets=column, kind="sound"), "unknown kind of inputs 'sound'"),
        (lambda: Dataset("own", column - 1, "regression", targets=column, kind="spikes", steps=1), "inputs is -1 at (0, 0)"),
        (
            lambda: Dataset("own", column, "regression", targets=column, kind="spikes"),
            "steps is 0; expected a number in [1, inf)",
        ),
        (lambda: Dataset("own", column, "regression", targets=column, steps=1.5), "steps is 1.5; expected a whole number"),
        (
            lambda: Dataset("own", column, "regression", targets=column, steps=2, seconds_per_step=1.0),
            "data set own has rows of 1 elements, which 2 steps do not divide; expected steps x channels",
        ),
        (
            lambda: Dataset("own", column, "regression", targets=column, steps=1),
            "seconds_per_step is 0 s; expected a number in (0, inf) s",
        ),
        (
            lambda: Dataset("own", column, "regression", targets=column, seconds_per_step=1e-3),
            "data set own has 0.001 s per step and no steps; expected both or neither",
        ),
        (lambda: Dataset("own", column * np.nan, "regression", targets=column), "inputs is nan at (0, 0)"),
    ):
        with pytest.raises(InputError) as caught:
            action()  # type: ignore[no-untyped-call]
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_data_set_is_listed() -> None:
    made = ["vowels-synthetic", "vowels-peterson-barney", "parity-3"]
    temporal = ["coincidence", "yin-yang", "mnist1d-crossings", "spoken-digits"]
    assert list(DATA) == [
        "digits",
        "mnist1d",
        "diabetes",
        *made,
        *temporal,
        "idx:FOLDER",
        "wav:FOLDER",
        "shd:FOLDER",
        "ssc:FOLDER",
    ]
    assert all(source.about and "\n" not in source.about for source in DATA.values())


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set may reach for the network."""
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a data set reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
