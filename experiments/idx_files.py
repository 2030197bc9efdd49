"""IDX files, the format of MNIST and of the sets made after it.

A file is: two zero bytes, a type code, the number of dimensions, each length as a big-endian 32-bit number, then the
elements, big-endian, last index fastest. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
digits", section "the IDX file format".
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Element type of each type code: unsigned and signed byte, short, int, float, double."""

GZIP_MAGIC = b"\x1f\x8b"
"""First bytes of a gzip file (RFC 1952, section 2.3.1)."""

CHUNK = 1 << 20
"""Bytes read at once: what a damaged header asks for is never allocated before it is there."""


@dataclass(frozen=True, slots=True, eq=False)
class IdxFolder:
    """Images and labels of a folder.

    Attributes
    ----------
    train_images, test_images : ndarray of uint8, shape (n, rows, columns)
        Grey levels, 0 to 255.
    train_labels, test_labels : ndarray of uint8, shape (n,)
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def read_idx(path: Path, *, code: int | None = None, dimensions: int | None = None) -> NDArray[Any]:
    """Read one IDX file, plain or compressed by gzip: its first bytes decide, not its name.

    Parameters
    ----------
    path : Path
        The file.
    code : int, optional
        Type code it must have, a key of `TYPES`; any when None.
    dimensions : int, optional
        Number of dimensions it must have; any of 1 to 255 when None.

    Returns
    -------
    ndarray
        In the machine's own byte order.

    Raises
    ------
    InputError
        When the file cannot be read, is too short or too long, is damaged, or has another magic number.
    """
    with _open(path) as stream:
        magic = _read(stream, 4)
        if len(magic) < 4:
            raise InputError(f"{path} is truncated: found {len(magic)} bytes, expected at least the 4 of an IDX magic number")
        found_code, found_dimensions = magic[2], magic[3]
        known = magic[:2] == b"\0\0" and found_code in TYPES and found_dimensions > 0
        if not known or code not in (None, found_code) or dimensions not in (None, found_dimensions):
            raise InputError(f"{path} has the magic number 0x{magic.hex()}; expected {_expected_magic(code, dimensions)}")
        header = 4 + 4 * found_dimensions
        lengths = _read(stream, header - 4)
        if len(lengths) < header - 4:
            raise InputError(f"{path} is truncated: found {4 + len(lengths)} bytes, expected a header of {header}")
        shape = struct.unpack(f">{found_dimensions}I", lengths)
        element = np.dtype(TYPES[found_code])
        expected = math.prod(shape) * element.itemsize
        data = _read(stream, expected + 1)  # one more than there should be, so that a file too long is noticed
    sizes = " x ".join(str(length) for length in shape)
    whole = f"{header + expected} for {sizes} elements"
    if len(data) < expected:
        raise InputError(f"{path} is truncated: found {header + len(data)} bytes, expected {whole}")
    if len(data) > expected:
        raise InputError(f"{path} is too long: found more than the expected {whole}")
    try:
        array = np.frombuffer(data, dtype=element).reshape(shape)
    except ValueError as error:  # more dimensions than numpy takes, or an impossible length beside one of 0
        sizes = f"{found_dimensions} dimensions, {sizes} elements"
        raise InputError(f"{path} has {sizes}; expected what an array can hold") from error
    return array.astype(element.newbyteorder("="))


def read_idx_folder(folder: Path) -> IdxFolder:
    """Read the four files of a folder laid out like MNIST.

    The names are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, with ``.idx`` for ``-idx`` and with ``.gz`` behind as well.

    Parameters
    ----------
    folder : Path
        Where they lie.

    Returns
    -------
    IdxFolder

    Raises
    ------
    InputError
        When the folder or a file is missing, a file is bad (`read_idx`), there are no images, images and labels differ
        in number, or test images differ from training images in size.
    """
    try:
        there = folder.is_dir()
    except OSError as error:  # a folder above it may not be entered
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not there:
        raise InputError(f"{folder} is not a folder; expected one with IDX files such as train-images-idx3-ubyte.gz")
    parts: list[NDArray[np.uint8]] = []
    for part in ("train", "t10k"):
        images_path, labels_path = _find(folder, part, "images", 3), _find(folder, part, "labels", 1)
        images = read_idx(images_path, code=0x08, dimensions=3)
        labels = read_idx(labels_path, code=0x08, dimensions=1)
        if images.size == 0:
            raise InputError(f"{images_path} holds {' x '.join(map(str, images.shape))} elements; expected at least one image")
        if len(images) != len(labels):
            counts = f"{len(images)} images and {labels_path.name} {len(labels)} labels"
            raise InputError(f"{images_path} holds {counts}; expected as many of both")
        parts += [images, labels]
    train_images, train_labels, test_images, test_labels = parts
    if train_images.shape[1:] != test_images.shape[1:]:
        sizes = [" x ".join(map(str, images.shape[1:])) for images in (train_images, test_images)]
        raise InputError(f"{folder} holds training images of {sizes[0]} pixels and test images of {sizes[1]}; expected one size")
    return IdxFolder(train_images, train_labels, test_images, test_labels)


def _find(folder: Path, part: str, kind: str, dimensions: int) -> Path:
    names = [f"{part}-{kind}{mark}idx{dimensions}-ubyte{ending}" for mark in "-." for ending in ("", ".gz")]
    try:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    raise InputError(f"{folder} has no {part} {kind}; looked for {', '.join(names)}")


def _expected_magic(code: int | None, dimensions: int | None) -> str:
    text = f"0x0000{'TT' if code is None else f'{code:02x}'}{'DD' if dimensions is None else f'{dimensions:02x}'}"
    if code is None:
        text += f", TT one of {', '.join(f'{known:02x}' for known in TYPES)}"
    return text if dimensions is not None else f"{text}, DD the number of dimensions, at least 01"


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed when it begins like a gzip file; trouble while reading becomes an `InputError`."""
    try:
        with path.open("rb") as plain:
            compressed = plain.read(2) == GZIP_MAGIC
            plain.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=plain) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield plain
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(stream: IO[bytes], count: int) -> bytes:
    """At most `count` bytes; fewer only at the end of the stream."""
    parts = []
    while count > 0 and (part := stream.read(min(count, CHUNK))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
