"""The name of a run: a hash over everything that decides its bits."""

import dataclasses
import functools
import hashlib
import importlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from inmaterio.devices.validation import InputError
from inmaterio.experiments.configuration import RunConfig


@functools.cache
def sources_digest() -> str:
    """SHA-256 over every Python file of the packages, by name and content, in order of name."""
    digest = hashlib.sha256()
    for name in ("devices", "simulators", "learning_rules", "experiments"):
        package = importlib.import_module(f"inmaterio.{name}")
        for folder in package.__path__:
            for file in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{name}/{file.relative_to(folder).as_posix()}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _versions() -> str:
    return " ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "torch"))


@functools.lru_cache(maxsize=64)
def _content(file: Path, modified_ns: int, size: int) -> str:
    """SHA-256 of a file, taken again when its time or size changes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _user_files(config: RunConfig) -> Iterator[Path]:
    """Files outside the packages that decide the result: rules and substrates from files, data from a folder."""
    for name in (config.rule.name, config.substrate.name, *(one.name for one in config.partners.values())):
        if ".py:" in name:
            yield Path(name.rpartition(":")[0])
    kind, _, place = config.data.name.partition(":")
    folder = Path(place).expanduser()
    if kind == "idx" and folder.is_dir():
        yield from (file for file in sorted(folder.iterdir()) if file.is_file())


def config_hash(config: RunConfig) -> str:
    """Name of the directory of a run: everything that decides its bits, in 16 hexadecimal digits.

    SHA-256 over the configuration, the packages' sources, the files of the user that it names, and the versions of
    numpy, numba and torch: a mended bug never serves old results.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    digest.update(sources_digest().encode())
    for file in _user_files(config):
        try:
            digest.update(f"{file.name} {_content(file, file.stat().st_mtime_ns, file.stat().st_size)}".encode())
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
    digest.update(_versions().encode())
    return digest.hexdigest()[:16]
