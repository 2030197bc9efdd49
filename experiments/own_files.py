"""Rules and substrates in files of the user: ``FILE.py:NAME``.

What counts is the content of a file, never its name, place or time: it is read anew whenever it has changed.
"""

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from inmaterio.devices.validation import InputError


def own_file(name: str) -> tuple[Path, str] | None:
    """File and inner name of ``FILE.py:NAME``; None for the name of something installed.

    Raises
    ------
    InputError
        When a file is named, but nothing after a colon.
    """
    file, colon, inner = name.partition(".py:")
    if (colon and not inner.strip()) or (not colon and name.endswith(".py")):
        raise InputError(f"{name!r} has no name after the file; expected FILE.py:NAME")
    return (Path(f"{file}.py").expanduser(), inner) if colon else None


def placed(name: str, folder: Path) -> str:
    """A name whose file, when it is relative and found in `folder`, is given by its whole path; other names as they are."""
    place = own_file(name)
    if place is None or place[0].is_absolute() or not (folder / place[0]).is_file():
        return name
    return f"{(folder / place[0]).resolve()}:{place[1]}"


def read_own(file: Path) -> bytes:
    """Content of a file.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"cannot read {file}: no such file") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def load_module(file: Path) -> ModuleType:
    """The module in a file as it is now.

    Raises
    ------
    InputError
        When it cannot be read or imported.
    """
    return _load(file.resolve(), read_own(file))


@functools.lru_cache(maxsize=64)
def _load(file: Path, content: bytes) -> ModuleType:
    name = f"inmaterio_user_{file.stem}_{hashlib.sha256(str(file).encode() + content).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses with slots look their module up by name.
    sys.modules[name] = module
    try:
        # Not through the loader: its cache of bytecode takes a file of the same second and size for the same file.
        exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{file} cannot be imported: {_said(error, file)}") from error
    return module


def guarded(build: Callable[..., Any], origin: str, check: Callable[[Any], str]) -> Callable[..., Any]:
    """A `build` of the user whose faults are told in one line.

    Parameters
    ----------
    build : callable
    origin : str
        Its file, for the message.
    check : callable
        What is wrong with a thing that was built; empty when nothing is.
    """

    @functools.wraps(build)
    def built(*arguments: Any, **options: Any) -> Any:
        try:
            found = build(*arguments, **options)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"{origin} failed while it was building: {_said(error, Path(origin))}") from error
        wrong = check(found)
        if wrong:
            raise InputError(f"build in {origin} returned {type(found).__name__}, {wrong}")
        return found

    return built


def _said(error: Exception, file: Path) -> str:
    """Type, message and, where it is known, line of an error in a file."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(file):
            line = step.tb_lineno
        step = step.tb_next
    text = " ".join(str(error).split())
    return type(error).__name__ + (f": {text}" if text else "") + (f" (line {line})" if line else "")
