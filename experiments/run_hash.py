"""The name of a run: a hash over everything that decides its bits."""

import dataclasses
import functools
import hashlib
import importlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import RunConfig, with_names
from inmaterio.experiments.own_files import own_file, read_own
from inmaterio.experiments.spoken_digits import PROGRAM, SPOKEN_DIGITS, program_version


@functools.cache
def sources_digest() -> str:
    """SHA-256 over every Python file of the packages and the table of formants, by name and content, in order of name."""
    digest = hashlib.sha256()
    for name in ("devices", "simulators", "learning_rules", "experiments"):
        package = importlib.import_module(f"inmaterio.{name}")
        for folder in package.__path__:
            for file in sorted([*Path(folder).rglob("*.py"), *Path(folder).glob("formants.csv")]):
                digest.update(f"{name}/{file.relative_to(folder).as_posix()}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _versions() -> str:
    return " ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "torch"))


def file_digest(file: Path) -> str:
    """SHA-256 of a file, taken again when its time or size changes.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        about = file.stat()
        return _digest(file, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


@functools.lru_cache(maxsize=4096)
def _digest(file: Path, modified_ns: int, size: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


FILES = {"idx": "*", "wav": "**/*.[wW][aA][vV]", "shd": "*.h5", "ssc": "*.h5"}
"""Which files of the user's folder a data set is read from, by the kind before the colon."""

WITH_OPTIONS = ("wav", "shd", "ssc")
"""Kinds whose name may carry options behind the folder."""


def data_folder(config: RunConfig) -> Path | None:
    """Folder of the data, when they are the user's own files."""
    kind, colon, place = config.data.name.partition(":")
    if kind in WITH_OPTIONS:
        place = place.partition("?")[0]
    return Path(place).expanduser().resolve() if kind in FILES and colon else None


def with_data_folder(config: RunConfig, place: str) -> RunConfig:
    """The configuration with the folder of its data, a `data_folder`, named as another; options stay."""
    kind, _, text = config.data.name.partition(":")
    mark, options = text.partition("?")[1:] if kind in WITH_OPTIONS else ("", "")
    return replace(config, data=replace(config.data, name=f"{kind}:{place}{mark}{options}"))


def _content(name: str) -> str:
    """A name with the content of its file in place of the file."""
    place = own_file(name)
    return name if place is None else f"{hashlib.sha256(read_own(place[0])).hexdigest()}.py:{place[1]}"


def config_hash(config: RunConfig) -> str:
    """Name of the directory of a run: everything that decides its bits, in 16 hexadecimal digits.

    SHA-256 over the configuration, the packages' sources, the files of the user that it names (what they hold, not where
    they are), and the versions of numpy, numba, torch and of the program that speaks the data, where one does: a mended bug
    never serves old results.
    """
    config = with_names(config, _content)
    folder = data_folder(config)
    if folder is not None:
        config = with_data_folder(config, "")
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    digest.update(sources_digest().encode())
    if folder is not None and folder.is_dir():
        for file in sorted(folder.glob(FILES[config.data.name.partition(":")[0]])):
            if file.is_file():
                digest.update(f"{file.relative_to(folder).as_posix()} {file_digest(file)}".encode())
    digest.update(_versions().encode())
    if config.data.name.partition("?")[0] == SPOKEN_DIGITS:  # another version speaks otherwise
        digest.update(f"{PROGRAM} {program_version()[1]}".encode())
    return digest.hexdigest()[:16]
