"""Where data that take long to make are kept, each file under the hash of its own content."""

import hashlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where this user's made data are kept: below XDG_CACHE_HOME when that is an absolute path, else the platform's place."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if home and Path(home).is_absolute():  # the XDG base directory specification has relative paths ignored
        base = Path(home)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base / "inmaterio" / "data"


def cached(path: Path, make: Callable[[], dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    """Arrays from a file, made again when it is damaged.

    The file is the SHA-256 of what follows in hexadecimal, a line end, and an .npz archive.
    """
    try:
        digest, _, archive = path.read_bytes().partition(b"\n")
        if hashlib.sha256(archive).hexdigest().encode() == digest:
            with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
                return dict(arrays)
        log.warning("%s is damaged (its hash is not the one it states); it is made again", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read (%s); its data are made again", path, error.strerror or error)
    arrays = make()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    archive = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(hashlib.sha256(archive).hexdigest().encode() + b"\n" + archive)
        temporary.replace(path)  # whole or not at all, also when two processes make it at once
    except OSError as error:
        log.warning("%s cannot be written (%s); its data will be made again next time", path, error.strerror or error)
    return arrays
