"""Files laid out like SHD and SSC: what is read from them, how it is binned, how speakers are split, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import DataConfig, RunConfig
from inmaterio.experiments.data import Dataset, Split, load_data, split
from inmaterio.experiments.event_files import Binning, EventFile, counts_of, read_event_file
from inmaterio.experiments.run_hash import config_hash

Events = Sequence[tuple[Sequence[float], Sequence[int]]]

ONE: Events = [([0.1, 0.2], [0, 699])]


def write(
    path: Path,
    events: Events,
    *,
    labels: Sequence[int] | None = None,
    speakers: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    kind: Any = np.float16,
    leave_out: str = "",
) -> Path:
    """A file in the layout of SHD."""
    with h5py.File(path, "w") as file:
        for name, of, element in (("times", 0, kind), ("units", 1, np.uint16)):
            if f"spikes/{name}" != leave_out:
                column = file.create_dataset(f"spikes/{name}", (len(events),), dtype=h5py.vlen_dtype(np.dtype(element)))
                for place, one in enumerate(events):
                    column[place] = np.array(one[of], dtype=element)
        if leave_out != "labels":
            file["labels"] = np.array([0] * len(events) if labels is None else labels, dtype=np.uint16)
        if speakers is not None:
            file["extra/speaker"] = np.array(speakers, dtype=np.uint16)
        if names is not None:
            file["extra/keys"] = np.array([one.encode() for one in names])
        file.create_group("extra/meta_info")
    return path


def raster(found: Any) -> np.ndarray:
    """Counts as (rows, steps, channels)."""
    return np.asarray(found.inputs).reshape(len(found.inputs), found.steps, found.channels)


@pytest.fixture
def shd(tmp_path: Path) -> Path:
    """Twelve speakers of whom two are heard in the test file only, two digits of each per file, as in SHD."""
    rng = np.random.default_rng(0)

    def some(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.sort(rng.uniform(0, 0.8, 50)), rng.integers(0, 700, 50)) for _ in range(count)]

    names = ["ZERO", "ONE", "NULL", "EINS"]
    write(tmp_path / "shd_train.h5", some(40), labels=[0, 1, 2, 3] * 10, speakers=np.repeat(np.arange(10), 4), names=names)
    write(tmp_path / "shd_test.h5", some(24), labels=[0, 1, 2, 3] * 6, speakers=np.repeat([0, 3, 5, 7, 10, 11], 4), names=names)
    return tmp_path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_events_fall_where_their_times_say(kind: Any, tmp_path: Path) -> None:
    # Times that all three types hold exactly; a channel is the sum of five neighbours.
    events = [([0.25, 0.25, 0.2578125, 0.5], [4, 0, 5, 699]), ([], []), ([0.0], [350])]
    path = write(tmp_path / "one.h5", events, kind=kind, labels=[1, 0, 1])
    binning = Binning(step_s=0.0078125)  # 1/128 s
    found = read_event_file(path, binning)
    counts = counts_of(found, binning, 33).reshape(3, 33, 140)
    expected = np.zeros((3, 33, 140), int)
    expected[0, 0, 0], expected[0, 1, 1], expected[0, 32, 139], expected[2, 0, 70] = 2, 1, 1, 1
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.uint8 and found.longest == 33 and found.labels.tolist() == [1, 0, 1]
    # Not from the first spike on: 32 steps later, and the whole sample is that much longer.
    late = Binning(step_s=0.0078125, aligned=False, channels=700, binary=True)
    counts = counts_of(read_event_file(path, late), late, 65).reshape(3, 65, 700)
    assert np.argwhere(counts).tolist() == [[0, 32, 0], [0, 32, 4], [0, 33, 5], [0, 64, 699], [2, 0, 350]]


def test_half_precision_is_widened_before_it_is_scaled(tmp_path: Path) -> None:
    # 1.2001953125 is a float16; in float16, 1.2001953125 / .0001 overflows nothing but is rounded to a multiple of 8.
    path = write(tmp_path / "one.h5", [([0.0, 1.2001953125], [0, 1])], kind=np.float16)
    found = read_event_file(path, Binning(step_s=1e-4, channels=700))
    assert found.events[0].tolist() == [[0, 0], [12001, 1]]


@given(
    times=st.lists(st.integers(0, 2000), min_size=1, max_size=30),
    step=st.integers(1, 50),
    aligned=st.booleans(),
    channels=st.sampled_from([1, 7, 140, 700]),
    seed=st.integers(0, 9),
)
def test_no_event_is_lost_or_moved(times: list[int], step: int, aligned: bool, channels: int, seed: int) -> None:
    import tempfile

    ticks = np.sort(times)
    units = np.random.default_rng(seed).integers(0, 700, len(ticks))
    binning = Binning(step_s=step / 1024, channels=channels, aligned=aligned)
    with tempfile.TemporaryDirectory() as folder:
        found = read_event_file(write(Path(folder) / "one.h5", [(ticks / 1024, units)], kind=np.float32), binning)
    counts = counts_of(found, binning, found.longest).reshape(found.longest, channels)
    expected = np.zeros_like(counts)
    for tick, unit in zip(ticks - ticks[0] * aligned, units, strict=True):
        expected[tick // step, unit * channels // 700] += 1
    np.testing.assert_array_equal(counts, expected)


def test_a_folder_keeps_its_test_rows_and_validates_on_other_speakers(shd: Path) -> None:
    found = load_data(f"shd:{shd}?steps=100")
    assert (found.name, found.kind, found.steps, found.channels) == (f"shd:{shd}?steps=100", "spikes", 100, 140)
    assert found.seconds_per_step == 0.01 and found.inputs.dtype == np.uint8 and found.classes == 4
    assert found.target_names == ("ZERO", "ONE", "NULL", "EINS")
    assert raster(found).sum() == 64 * 50 and (raster(found)[:, 0].sum(axis=1) >= 1).all()
    for seed in range(5):
        parts = split(found, split_seed=seed)
        np.testing.assert_array_equal(parts.test, np.arange(40, 64))
        assert (len(parts.train), len(parts.validation)) == (32, 8)
        assert not set(parts.train // 4) & set(parts.validation // 4)  # four rows per speaker
    assert "published test rows: 4 of their 6 speakers are among the 10 of the training rows too" in found.notes[1]
    # Without a number of steps, as many as the longest sample needs.
    longest = load_data(f"shd:{shd}")
    assert longest.steps < 81 and raster(longest)[:, -1].any()
    np.testing.assert_array_equal(raster(longest), raster(found)[:, : longest.steps])
    assert not raster(found)[:, longest.steps :].any()
    binary = load_data(f"shd:{shd}?binary=1&channels=7")
    assert binary.inputs.max() == 1 < load_data(f"shd:{shd}?channels=7").inputs.max()


@pytest.fixture
def ssc(tmp_path: Path) -> Path:
    """Rows 0 to 5 for training, 6 to 8 for validation, one of a speaker who was trained on, 9 and 10 for test."""
    for part, speakers in (("train", [0, 1, 2, 3, 0, 1]), ("valid", [4, 5, 0]), ("test", [6, 7])):
        write(tmp_path / f"ssc_{part}.h5", ONE * len(speakers), speakers=speakers, labels=[i % 2 for i in speakers])
    return tmp_path


def test_published_validation_rows_of_ssc_stand(ssc: Path) -> None:
    found = load_data(f"ssc:{ssc}")
    orders = set()
    for seed in range(5):
        for fraction in (0.0, 0.2, 0.9):
            parts = split(found, split_seed=seed, validation_fraction=fraction)
            assert sorted(parts.train.tolist()) == [0, 1, 2, 3, 4, 5]
            assert (parts.validation.tolist(), parts.test.tolist()) == ([6, 7, 8], [9, 10])
            assert sorted(parts.train_and_validation.tolist()) == list(range(9))
            orders.add((seed, *parts.train.tolist()))
    assert len(orders) == 5 and len({order[1:] for order in orders}) > 1  # of the seed, not of the fraction
    assert found.target_names == ("0", "1")
    assert "0 of their 2 speakers are among the 4 of the training rows too" in found.notes[1]
    assert "validation rows as published: 1 of their 3 speakers are among the 4" in found.notes[1]
    assert "published validation rows, the 3 of ssc_valid.h5" in found.notes[2] and "fraction is ignored" in found.notes[2]
    assert load_data(f"ssc:{ssc}?merge=0").notes == found.notes


def test_published_validation_rows_stand_without_speakers(ssc: Path) -> None:
    write(ssc / "ssc_valid.h5", ONE * 3, labels=[0, 1, 0])
    found = load_data(f"ssc:{ssc}")
    assert found.groups is None and "validation and test rows may be of speakers that were trained on" in found.notes[1]
    assert split(found, split_seed=3).validation.tolist() == [6, 7, 8]


@pytest.mark.parametrize(("limit", "train", "validation"), [(2, 1, 1), (3, 2, 1), (6, 4, 2), (9, 6, 3), (99, 6, 3)])
def test_published_validation_rows_keep_their_share_of_a_limit(limit: int, train: int, validation: int, ssc: Path) -> None:
    parts = split(load_data(f"ssc:{ssc}"), split_seed=1, train_limit=limit, test_limit=1)
    assert sorted(parts.train.tolist()) == list(range(train))
    assert parts.validation.tolist() == list(range(6, 6 + validation)) and parts.test.tolist() == [9]


def test_the_files_of_ssc_are_merged_on_request(ssc: Path) -> None:
    found = load_data(f"ssc:{ssc}?merge=1")
    drawn = set()
    for seed in range(5):
        parts = split(found, split_seed=seed)
        assert sorted(parts.train_and_validation.tolist()) == list(range(9)) and parts.test.tolist() == [9, 10]
        assert found.groups is not None
        assert len(np.unique(found.groups[parts.validation])) == 1  # a fifth of six speakers
        drawn.add(tuple(sorted(parts.validation.tolist())))
    assert len(drawn) > 1
    assert "0 of their 2 speakers are among the 6" in found.notes[1] and "merge=1: " in found.notes[2]


def test_a_limit_without_room_for_published_validation_rows_is_refused(ssc: Path, shd: Path) -> None:
    with pytest.raises(InputError, match=r"train_limit is 1; expected at least 2 for data set ssc:.*, whose validation rows are"):
        split(load_data(f"ssc:{ssc}"), split_seed=0, train_limit=1)
    with pytest.raises(InputError, match="unknown option of shd:FOLDER: 'merge'"):
        load_data(f"shd:{shd}?merge=1")


def test_a_group_in_published_training_and_validation_rows_is_refused() -> None:
    rows = np.arange(3)
    with pytest.raises(InputError, match="published split of own has group 7 on both sides; expected whole groups"):
        Dataset(
            "own",
            np.zeros((3, 1)),
            "regression",
            targets=np.zeros((3, 1)),
            groups=np.array([7, 7, 8]),
            default_split=Split(rows[:1], rows[1:2], rows[2:]),
        )


def test_the_hash_of_a_run_is_of_what_the_files_hold(shd: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()

    def named(folder: Path, options: str = "?steps=100") -> str:
        return config_hash(RunConfig(data=DataConfig(f"shd:{folder}{options}")))

    before = named(shd)
    for file in shd.glob("*.h5"):
        file.rename(moved / file.name)
    assert named(moved) == before != named(moved, "?steps=90")
    write(moved / "shd_test.h5", ONE)
    assert named(moved) != before


def test_files_without_speakers_say_so(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"shd_{part}.h5", ONE * 10, labels=[0, 1] * 5)
    found = load_data(f"shd:{tmp_path}")
    assert found.groups is None and "do not name the speakers" in found.notes[1]
    assert len(split(found, split_seed=0).validation) == 2


def test_events_are_cut_and_sorted_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "one.h5", [([0.5, 0.125, 0.25], [1, 2, 3])])
    binning = Binning(step_s=0.125, channels=700, sort=True, cut=True, steps=3)
    assert read_event_file(path, binning).events[0].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        (
            [*ONE, ([0.5, 0.25], [0, 0])],
            {},
            "sample 1 of {path} has time 0.25 s at event 1, after 0.5 s; expected times",
        ),
        ([([-0.5], [0])], {}, "sample 0 of {path} has time -0.5 at event 0; expected at least 0 s"),
        ([([0.0, np.nan], [0, 0])], {}, "has time nan at event 1; expected a finite number of seconds"),
        ([([0.0, np.inf], [0, 0])], {}, "has time inf at event 1; expected a finite number of seconds"),
        ([([0.0, 0.5], [0, 700])], {}, "sample 0 of {path} has unit 700 at event 1; expected a unit in [0, 699]"),
        ([([0.0], [64])], {"units": 64, "channels": 8}, "has unit 64 at event 0; expected a unit in [0, 63]"),
        (
            [([0.25, 1.25], [0, 0])],
            {"steps": 100},
            "sample 0 of {path} is 101 steps of 0.01 s long (1.01 s); expected at most steps = 100, or cut=1",
        ),
        ([([0.5, 0.75], [0])], {}, "has times of shape (2,) and uint16 units of shape (1,)"),
        ([], {}, "{path} holds 0 spikes/times, 0 spikes/units, 0 labels; expected as many of each, and at least one"),
    ],
)
def test_bad_events_are_refused_with_the_limit(events: Events, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.h5", events)
    with pytest.raises(InputError) as caught:
        read_event_file(path, Binning(**options))
    assert message.format(path=path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["spikes/times", "spikes/units", "labels"])
def test_a_file_without_the_groups_is_refused(group: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.h5", ONE, leave_out=group)
    with pytest.raises(InputError) as caught:
        read_event_file(path, Binning())
    assert str(caught.value) == f"{path} has no {group}; expected spikes/times, spikes/units, labels, the layout of SHD"


def test_bad_files_are_refused_in_one_line(tmp_path: Path, shd: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "packed.h5.zip").write_text("")
    many = EventFile(tmp_path, [np.zeros((300, 2), np.int64)], np.zeros(1, np.int64), None, ())
    for action, message in (
        (lambda: read_event_file(tmp_path / "absent.h5", Binning()), "absent.h5 cannot be read: no such file"),
        (lambda: read_event_file(tmp_path / "text.h5", Binning()), "text.h5 cannot be read: Unable to "),
        (
            lambda: read_event_file(tmp_path / "packed.h5", Binning()),
            "packed.h5 is not there, packed.h5.zip is; expected it unpacked",
        ),
        (
            lambda: read_event_file(write(tmp_path / "a.h5", ONE, labels=[0, 1]), Binning()),
            "holds 1 spikes/times, 1 spikes/units, 2 labels; expected as many of each",
        ),
        (
            lambda: read_event_file(write(tmp_path / "b.h5", ONE, speakers=[0, 1]), Binning()),
            "holds 1 labels and 2 extra/speaker; expected as many of both",
        ),
        (
            lambda: read_event_file(write(tmp_path / "c.h5", ONE, labels=[3], names=["a", "b"]), Binning()),
            "has label 3 and 2 extra/keys; expected a name for every label",
        ),
        (lambda: counts_of(many, Binning(), 1), "has 300 events in step 0 of channel 0 of sample 0; expected at most 255"),
        (lambda: Binning(channels=150), "channels is 150, which does not divide 700 units; expected a divisor"),
        (lambda: load_data("shd"), "data set 'shd' names no folder; expected shd:FOLDER, such as shd:/data/SHD"),
        (lambda: load_data(f"shd:{tmp_path}/no"), "no is not a folder; expected one with shd_train.h5, shd_test.h5"),
        (lambda: load_data(f"ssc:{tmp_path}"), "ssc_train.h5 cannot be read: no such file"),
        (lambda: load_data(f"shd:{shd}?bins=3"), "unknown option of shd:FOLDER: 'bins'; nearest: "),
        (lambda: load_data(f"shd:{shd}?step=0"), "option step of shd:FOLDER is 0 s; expected a number in (0, inf) s"),
        (lambda: load_data(f"shd:{shd}?steps=20"), "expected at most steps = 20, or cut=1"),
        (lambda: load_data("shd:~nobody-of-this-name/SHD"), "data set shd:~nobody-of-this-name/SHD: "),
    ):
        with pytest.raises(InputError) as caught:
            action()  # type: ignore[no-untyped-call]
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert load_data(f"shd:{shd}?steps=20&cut=1").steps == 20
