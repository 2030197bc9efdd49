"""The decorator of every kernel, and a disk cache of machine code that notices changes in other files.

numba's own cache (``cache=True``) looks only at the file a function stands in: when a function that was inlined from
another file changes, the old machine code is served (numba issue 1833). Here the cache folder of a kernel carries a hash
of its file and of every file of the package which that file imports, directly or not, so a stale hit cannot happen, also
across releases and branches.
"""

import ast
import hashlib
import importlib.util
import inspect
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

import numba
import numpy as np
from numba.core import caching
from numba.core import config as _numba_config

Function = TypeVar("Function", bound=Callable[..., Any])

config: Any = _numba_config  # its settings are made at run time, so type checkers do not know them

KEPT_FOLDERS = 4
"""Cache folders of one file that are always kept, newest first."""

KEPT_SECONDS = 86_400.0
"""Age in seconds below which a cache folder is never deleted: another process may be using it."""


@overload
def kernel(function: Function, /) -> Function: ...


@overload
def kernel(
    *,
    parallel: bool = False,
    nogil: bool = False,
    inline: Literal["never", "always"] = "never",
    signature: str | Sequence[str] | None = None,
) -> Callable[[Function], Function]: ...


def kernel(
    function: Function | None = None,
    /,
    *,
    parallel: bool = False,
    nogil: bool = False,
    inline: Literal["never", "always"] = "never",
    signature: str | Sequence[str] | None = None,
) -> Function | Callable[[Function], Function]:
    """Compile a pure function on arrays and numbers: ``numba.njit(cache=True, error_model="numpy", fastmath=False)``.

    Parameters
    ----------
    function : callable
        Function that stands at the top of a file. One typed in interactively is compiled, and not kept on disk.
    parallel : bool
        Allow ``prange`` (over independent batch items only, never a reduction).
    nogil : bool
        Release the interpreter lock while it runs.
    inline : {"never", "always"}
        Inline into other kernels before type inference.
    signature : str or sequence of str, optional
        Compile for these types at once and refuse any other.

    Returns
    -------
    callable
        The compiled function, with the type of `function`. Machine code is kept below ``NUMBA_CACHE_DIR`` when that is
        set, else in the user's cache folder. Where that cannot be written a warning says so, and nothing is kept.
    """

    def compile_function(python_function: Function) -> Function:
        decorate = numba.njit(error_model="numpy", fastmath=False, parallel=parallel, nogil=nogil, inline=inline)
        compiled: Any = decorate(python_function)
        if not config.DISABLE_JIT:
            _keep_on_disk(compiled, python_function)
            if signature is not None:
                for types in [signature] if isinstance(signature, str) else signature:
                    compiled.compile(types)
                compiled.disable_compile()
        return cast(Function, compiled)

    return compile_function if function is None else compile_function(function)


def source_hash(path: str | Path, module: str) -> str:
    """Hash of a file and of every file of its package, of inmaterio and of its own folder that it imports.

    Parameters
    ----------
    path : str or Path
        The file.
    module : str
        Its dotted name, which tells its package.

    Returns
    -------
    str
        40 hexadecimal digits. They also depend on what changes machine code without changing any file: the versions of
        numba and numpy, and numba's settings for bounds checks, optimisation, debugging and coverage.
    """
    choices = ("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "JIT_COVERAGE", "LOOP_VECTORIZE")
    settings = [str(getattr(config, name, None)) for name in choices]
    digest = hashlib.sha256("\0".join([numba.__version__, np.__version__, *settings]).encode())
    start = Path(path).absolute()
    own = (module.partition(".")[0], "inmaterio")
    contents: dict[Path, bytes] = {}
    waiting = [(start, module)]
    while waiting:
        file, name = waiting.pop()
        if file in contents:
            continue
        status = file.stat()
        content, imports = _read_source(file, status.st_mtime_ns, status.st_size)
        contents[file] = name.encode() + content
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for level, imported, names in imports:
            for candidate in _candidates(level, imported, names, package):
                found = _find_source(candidate, own=own, folder=start.parent)
                if found is not None:
                    waiting.append((found, candidate))
    for content in sorted(contents.values()):
        digest.update(content)
    return digest.hexdigest()[:40]


@cache
def _read_source(file: Path, modified_ns: int, size: int) -> tuple[bytes, tuple[tuple[int, str, tuple[str, ...]], ...]]:
    """Hash of a file and its import statements (level, module, names); the stamps only key the memory of it."""
    text = file.read_bytes()
    return hashlib.sha256(text).digest(), tuple(_imports(ast.parse(text).body))


def _imports(statements: list[ast.stmt]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Import statements at any depth. Expressions are not entered: they hold none, and are most of the tree."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield 0, alias.name, ()
        elif isinstance(statement, ast.ImportFrom):
            yield statement.level, statement.module or "", tuple(alias.name for alias in statement.names)
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(statement, part, []))
            for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _imports(branch.body)


def _candidates(level: int, imported: str, names: tuple[str, ...], package: str) -> Iterator[str]:
    """Modules an import statement may load: the one it names, and each name it takes from a package."""
    if level:
        try:
            imported = importlib.util.resolve_name("." * level + imported, package)
        except ImportError:
            return
    yield imported
    for name in names:
        yield f"{imported}.{name}"


def _find_source(name: str, *, own: tuple[str, str], folder: Path) -> Path | None:
    """File of a module when it belongs to one of the `own` packages or lies in `folder`; None for any other."""
    file = getattr(sys.modules.get(name), "__file__", None)
    is_own = name.partition(".")[0] in own
    if file is None and is_own:
        specification = _find_specification(name)
        file = specification.origin if specification is not None and specification.has_location else None
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    source = Path(file).absolute()
    return source if is_own or source.parent == folder else None


def _find_specification(name: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which would import the packages above, and so might run half-imported modules."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    parent = name.rpartition(".")[0]
    folders = None
    if parent:
        above = _find_specification(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        folders = above.submodule_search_locations
    for finder in sys.meta_path:
        found = finder.find_spec(name, folders)
        if found is not None:
            return found
    return None


def cache_root() -> Path:
    """Folder below which machine code is kept: ``NUMBA_CACHE_DIR`` when set, else the user's cache folder."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "inmaterio" / "kernels"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "inmaterio" / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "inmaterio" / "kernels"


def _prune(folder: Path) -> None:
    """Delete cache folders of the same file that are neither among the newest nor younger than a day."""
    label = folder.name.rpartition("-")[0]
    ages = []
    for sibling in folder.parent.glob(f"{label}-*"):
        try:
            if sibling != folder and sibling.name.rpartition("-")[0] == label:
                ages.append((sibling.stat().st_mtime, sibling))
        except OSError:  # another process deleted it first
            continue
    for modified, sibling in sorted(ages, reverse=True)[KEPT_FOLDERS - 1 :]:
        if time.time() - modified > KEPT_SECONDS:
            shutil.rmtree(sibling, ignore_errors=True)


@cache
def _open_folder(root: Path, label: str, stamp: str) -> str:
    """Make the cache folder, mark it as used now, and prune its older siblings when it is new."""
    folder = root / f"{label}-{stamp}"
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if is_new:
        _prune(folder)
    else:
        os.utime(folder)
    return str(folder)


class _SourceLocator(caching._CacheLocator):
    """Puts a kernel's machine code into the folder of its sources' hash."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno
        self._stamp = source_hash(file, function.__module__)
        self._path = _open_folder(cache_root(), function.__module__, self._stamp)

    def get_cache_path(self) -> str:
        return self._path

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_SourceLocator":
        return cls(function, file)


class _CacheContents(caching.CompileResultCacheImpl):
    _locator_classes: Any = (_SourceLocator,)


class _CacheFile(caching.IndexDataCacheFile):
    """Index and data files that two processes may write at once.

    numba numbers data files in order, so two processes that compile different types at the same time take the same
    number, and the index may end up naming the other's machine code. A number made from the key cannot be taken twice;
    data is written before the index, which at worst loses an entry and is written again.
    """

    def save(self, key: Any, data: Any) -> None:
        number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
        files: Any = self  # numba's methods carry no types
        name = files._data_name(number)
        files._save_data(name, data)
        files._save_index({**files._load_index(), key: name})


class _KernelCache(caching.FunctionCache):
    _impl_class = _CacheContents


def _keep_on_disk(compiled: Any, function: Callable[..., Any]) -> None:
    if not Path(inspect.getfile(function)).exists():
        return
    make_cache: Any = _KernelCache
    make_file: Any = _CacheFile
    try:
        kept = make_cache(function)
        kept._cache_file = make_file(kept.cache_path, kept._impl.filename_base, kept._impl.locator.get_source_stamp())
        compiled._cache = kept
    except OSError as error:
        warnings.warn(
            f"compiled kernels cannot be kept in {cache_root()} ({error}); set NUMBA_CACHE_DIR to a folder that can be written",
            RuntimeWarning,
            stacklevel=4,
        )
