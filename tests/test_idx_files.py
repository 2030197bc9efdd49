"""IDX files, written here with struct from the format's description, good and bad in every way."""

import errno
import gzip
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inmaterio.devices.validation import InputError
from inmaterio.experiments.idx_files import read_idx, read_idx_folder

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IMAGES = struct.pack(">IIII", 0x803, 3, 2, 2) + bytes(range(12))
LABELS = struct.pack(">II", 0x801, 3) + bytes([7, 0, 9])
TEST_IMAGES = struct.pack(">IIII", 0x803, 1, 2, 2) + bytes([255, 0, 1, 2])
TEST_LABELS = struct.pack(">II", 0x801, 1) + bytes([9])
CONTENTS = dict(zip(NAMES, (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS), strict=True))


def plain(data: bytes) -> bytes:
    return data


@pytest.fixture(params=[plain, gzip.compress], ids=["plain", "gzip"])
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    """Files as they are, and compressed under a name that does not say so."""
    packing: Callable[[bytes], bytes] = request.param
    return packing


def write_folder(folder: Path, *, mark: str = "-idx", ending: str = "", pack: Callable[[bytes], bytes] = plain) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in CONTENTS.items():
        (folder / (name.replace("-idx", mark) + ending)).write_bytes(pack(data))
    return folder


def fails(action: Callable[[], object]) -> str:
    """The message of an `InputError`, one line."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-idx", ".idx"])
def test_a_folder_is_read_under_every_name(tmp_path: Path, mark: str, ending: str) -> None:
    found = read_idx_folder(write_folder(tmp_path, mark=mark, ending=ending, pack=gzip.compress if ending else plain))
    np.testing.assert_array_equal(found.train_images, [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]])
    np.testing.assert_array_equal(found.train_labels, [7, 0, 9])
    np.testing.assert_array_equal(found.test_images, [[[255, 0], [1, 2]]])
    np.testing.assert_array_equal(found.test_labels, [9])
    assert {part.dtype for part in (found.train_images, found.test_labels)} == {np.dtype(np.uint8)}


def test_content_decides_whether_a_file_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "plain.gz").write_bytes(LABELS)
    (tmp_path / "packed").write_bytes(gzip.compress(LABELS))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), [7, 0, 9])
    np.testing.assert_array_equal(read_idx(tmp_path / "packed"), [7, 0, 9])


@pytest.mark.parametrize(
    ("code", "letter", "values"),
    [
        (0x08, "B", [0, 255]),
        (0x09, "b", [-128, 127]),
        (0x0B, "h", [-32768, 258]),
        (0x0C, "i", [-(2**31), 16909060]),
        (0x0D, "f", [-1.5, 2.0**-20]),
        (0x0E, "d", [-1.5, 0.1]),
    ],
)
def test_every_element_type_is_big_endian(tmp_path: Path, code: int, letter: str, values: list[float]) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack(f">BBBBI2{letter}", 0, 0, code, 1, 2, *values))
    found = read_idx(path)
    assert found.tolist() == values
    assert found.dtype.isnative
    assert found.flags.writeable


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=5), compressed=st.booleans(), change=st.integers(-6, 3))
def test_any_shape_is_read_and_any_other_length_refused(tmp_path: Path, shape: list[int], compressed: bool, change: int) -> None:
    elements = math.prod(shape)
    body = bytes(i % 251 for i in range(elements))
    whole = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + body
    data = whole[: len(whole) + change] if change < 0 else whole + bytes(change)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if compressed else data)
    if change == 0:
        assert read_idx(path).tolist() == np.array(list(body)).reshape(shape).tolist()
    else:
        message = fails(lambda: read_idx(path))
        assert message.startswith(str(path))
        assert ("truncated" if change < 0 else "too long") in message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40), compressed=st.booleans())
def test_any_bytes_give_an_array_or_one_clear_line(tmp_path: Path, data: bytes, compressed: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if compressed else data)
    try:
        found = read_idx(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert data[:2] == b"\0\0"
        assert found.ndim == data[3]
        assert len(data) == 4 + 4 * found.ndim + found.nbytes


def test_truncation_tells_bytes_found_and_expected(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(IMAGES[:-5]))
    assert fails(lambda: read_idx(path)) == f"{path} is truncated: found 23 bytes, expected 28 for 3 x 2 x 2 elements"
    path.write_bytes(pack(IMAGES[:9]))
    assert fails(lambda: read_idx(path)) == f"{path} is truncated: found 9 bytes, expected a header of 16"
    path.write_bytes(pack(b""))
    assert fails(lambda: read_idx(path)) == f"{path} is truncated: found 0 bytes, expected at least the 4 of an IDX magic number"


def test_a_header_that_asks_for_the_impossible_allocates_nothing(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(8)))
    assert f"found 24 bytes, expected {16 + (2**32 - 1) ** 3} for" in fails(lambda: read_idx(path))
    path.write_bytes(pack(struct.pack(">IIII", 0x803, 0, 2**32 - 1, 2**32 - 1)))
    assert "3 dimensions, 0 x 4294967295 x 4294967295 elements" in fails(lambda: read_idx(path))
    path.write_bytes(pack(b"\0\0\x08\xff" + struct.pack(">I", 1) * 255 + b"\0"))
    assert "255 dimensions" in fails(lambda: read_idx(path))


def test_wrong_magic_is_shown_in_hexadecimal(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(LABELS))
    assert fails(lambda: read_idx(path, code=8, dimensions=3)) == f"{path} has the magic number 0x00000801; expected 0x00000803"
    path.write_bytes(pack(b"PK\x03\x04"))
    message = fails(lambda: read_idx(path))
    assert "0x504b0304; expected 0x0000TTDD" in message
    assert "08, 09, 0b, 0c, 0d, 0e" in message
    for magic in (b"\0\0\x0a\x01", b"\0\0\x08\0", b"\x01\0\x08\x01"):
        path.write_bytes(pack(magic + bytes(4)))
        assert magic.hex() in fails(lambda: read_idx(path))


def test_damaged_gzip_is_told_from_a_short_file(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(struct.pack(">II", 0x801, 4000) + np.random.default_rng(0).bytes(4000)))
    path = tmp_path / "file.gz"
    path.write_bytes(whole[: len(whole) // 2])
    assert "is a damaged gzip file: " in fails(lambda: read_idx(path))
    path.write_bytes(whole[:5])
    assert "is a damaged gzip file: " in fails(lambda: read_idx(path))
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the checksum: every byte of data is as it was
    path.write_bytes(flipped)
    assert "is a damaged gzip file: CRC" in fails(lambda: read_idx(path))
    flipped = bytearray(whole)
    flipped[10] = 0xFF  # an impossible block type
    path.write_bytes(flipped)
    assert "is a damaged gzip file: " in fails(lambda: read_idx(path))


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    assert fails(lambda: read_idx(tmp_path / "none")) == f"{tmp_path / 'none'} cannot be read: No such file or directory"
    assert "cannot be read" in fails(lambda: read_idx(tmp_path))
    assert "is not a folder" in fails(lambda: read_idx_folder(tmp_path / "none"))
    (tmp_path / "file").write_bytes(LABELS)
    assert "is not a folder" in fails(lambda: read_idx_folder(tmp_path / "file"))


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind the superuser, as whom tests may run, so the system's refusal is played.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    write_folder(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    assert fails(lambda: read_idx(tmp_path / NAMES[0])) == f"{tmp_path / NAMES[0]} cannot be read: Permission denied"
    monkeypatch.setattr(Path, "is_file", refuse)
    assert fails(lambda: read_idx_folder(tmp_path)) == f"{tmp_path} cannot be read: Permission denied"
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert fails(lambda: read_idx_folder(tmp_path)) == f"{tmp_path} cannot be read: Permission denied"


def test_an_empty_folder_tells_what_was_looked_for(tmp_path: Path) -> None:
    message = fails(lambda: read_idx_folder(tmp_path))
    assert message.startswith(f"{tmp_path} has no train images; looked for ")
    for mark in "-.":
        assert f"train-images{mark}idx3-ubyte, train-images{mark}idx3-ubyte.gz" in message


@pytest.mark.parametrize("name", NAMES)
def test_each_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path) / name).unlink()
    assert name in fails(lambda: read_idx_folder(tmp_path))


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(TEST_LABELS)
    message = fails(lambda: read_idx_folder(tmp_path))
    assert message == f"{tmp_path / NAMES[0]} holds 3 images and {NAMES[1]} 1 labels; expected as many of both"
    (tmp_path / NAMES[1]).write_bytes(IMAGES)
    assert "0x00000803; expected 0x00000801" in fails(lambda: read_idx_folder(tmp_path))
    write_folder(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(struct.pack(">IIII", 0x803, 1, 1, 4) + bytes(4))
    assert "training images of 2 x 2 pixels and test images of 1 x 4" in fails(lambda: read_idx_folder(tmp_path))
    (tmp_path / NAMES[2]).write_bytes(struct.pack(">IIII", 0x803, 0, 2, 2))
    assert "0 x 2 x 2 elements; expected at least one image" in fails(lambda: read_idx_folder(tmp_path))
