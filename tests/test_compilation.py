"""The kernel decorator: its options, and a disk cache that notices changes in other files."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import prange
from numpy.typing import NDArray

from inmaterio.devices import compilation, randomness
from inmaterio.devices.compilation import kernel, source_hash

CALLER = """
from inmaterio.devices.compilation import kernel
from physics.{callee} import scale

@kernel
def double_and_scale(x):
    return 2.0 * scale(x)
"""
CALLEE = """
from inmaterio.devices.compilation import kernel

@kernel
def scale(x):
    return {factor} * x
"""
QUESTION = """
import json
from physics.caller import double_and_scale
value = [double_and_scale(argument) for argument in ({argument},)][-1]
stats = double_and_scale.stats
print(json.dumps([value, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), stats.cache_path]))
"""


def _write_package(folder: Path, factor: float) -> Path:
    package = folder / "physics"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "caller.py").write_text(CALLER.format(callee="callee"))
    (package / "callee.py").write_text(CALLEE.format(factor=factor))
    return package


def _ask(folder: Path, argument: str = "1.5", cache: Path | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(cache or folder / "cache")}
    command = [sys.executable, "-c", QUESTION.format(argument=argument)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _answer(process: subprocess.Popen[str]) -> tuple[float, int, int, Path]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    value, hits, misses, path = json.loads(output)
    return value, hits, misses, Path(path)


def test_a_change_in_another_file_is_noticed_and_an_unchanged_one_is_served_from_disk(tmp_path: Path) -> None:
    _write_package(tmp_path, factor=4.0)
    value, hits, misses, first = _answer(_ask(tmp_path))
    assert (value, hits, misses) == (12.0, 0, 1)
    assert first.parent == tmp_path / "cache"
    assert len(list(first.glob("*.nbi"))) == 1

    value, hits, misses, again = _answer(_ask(tmp_path))
    assert (value, hits, misses, again) == (12.0, 1, 0, first)

    _write_package(tmp_path, factor=5.0)
    value, hits, misses, second = _answer(_ask(tmp_path))
    assert (value, hits, misses) == (15.0, 0, 1)
    assert second != first


def test_processes_can_compile_at_once(tmp_path: Path) -> None:
    _write_package(tmp_path, factor=4.0)
    running = [_ask(tmp_path, argument) for argument in ("1.5", "2")]
    assert [_answer(process)[0] for process in running] == [12.0, 16.0]
    assert _answer(_ask(tmp_path, "1.5, 2"))[0] == 16.0
    assert _answer(_ask(tmp_path, "2, 1.5"))[:3] == (12.0, 2, 0)


def test_a_cache_that_cannot_be_written_is_told_and_the_kernel_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_text("a file, where a folder is asked for")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "occupied"))
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR to a folder that can be written"):
        compiled = kernel(_plus_one)
    assert compiled(2.0) == 3.0


def test_two_writers_of_one_index_never_swap_machine_code(tmp_path: Path) -> None:
    make: Any = compilation._CacheFile
    first, second = make(str(tmp_path), "f", "stamp"), make(str(tmp_path), "f", "stamp")
    second._load_index = dict  # as if it had looked before the first one wrote
    first.save("float64", "code for float64")
    second.save("int64", "code for int64")
    reader = make(str(tmp_path), "f", "stamp")
    assert reader.load("int64") == "code for int64"
    assert reader.load("float64") in (None, "code for float64")
    first.save("float64", "code for float64")
    assert (reader.load("int64"), reader.load("float64")) == ("code for int64", "code for float64")


START = """
import numpy
from reach.plain import a
from reach import module
from . import relative
import reach.whole as w

def f():
    if True:
        try:
            from reach.late import a
        except ImportError:
            pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose `start` reaches every other file but `stranger`, each by another kind of import."""
    package = tmp_path / "reach"
    (package / "inner").mkdir(parents=True)
    files = {
        "__init__": "",
        "start": START,
        "plain": "from .deeper import a",
        "deeper": "from reach.inner import package_itself\na = 1",
        "inner/__init__": "from .leaf import package_itself",
        "inner/leaf": "from ..climbed import up\npackage_itself = 1",
        "climbed": "up = 1\nimport reach.start",
        "module": "",
        "relative": "",
        "whole": "",
        "late": "a = 1",
        "stranger": "",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "reach"]:
        del sys.modules[name]


REACHED = ["start", "plain", "deeper", "inner/__init__", "inner/leaf", "climbed", "module", "relative", "whole", "late"]


def _change(path: Path) -> None:
    path.write_text(path.read_text() + "\n# changed\n")


@pytest.mark.parametrize("changed", REACHED)
def test_the_hash_covers_what_is_imported(package: Path, changed: str) -> None:
    before = source_hash(package / "start.py", "reach.start")
    assert before == source_hash(package / "start.py", "reach.start")
    _change(package / f"{changed}.py")
    assert source_hash(package / "start.py", "reach.start") != before


def test_the_hash_leaves_out_what_is_not(package: Path) -> None:
    before = source_hash(package / "start.py", "reach.start")
    _change(package / "stranger.py")
    assert source_hash(package / "start.py", "reach.start") == before


def test_the_hash_covers_inmaterio_and_neighbours_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "neighbour_of_script.py").write_text("a = 1")
    script = tmp_path / "script.py"
    script.write_text("import neighbour_of_script\nfrom inmaterio.devices.randomness import Key\n")
    import neighbour_of_script  # type: ignore[import-not-found]  # noqa: F401

    before = source_hash(script, "__main__")
    _change(tmp_path / "neighbour_of_script.py")
    changed = source_hash(script, "__main__")
    assert changed != before
    read = compilation._read_source
    inmaterio_file = Path(randomness.__file__).absolute()

    def read_another_version(file: Path, modified_ns: int, size: int) -> Any:
        content, imports = read(file, modified_ns, size)
        return (content[::-1] if file == inmaterio_file else content), imports

    monkeypatch.setattr(compilation, "_read_source", read_another_version)
    assert source_hash(script, "__main__") != changed
    del sys.modules["neighbour_of_script"]


def test_the_hash_covers_settings_that_change_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_hash(__file__, __name__)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert source_hash(__file__, __name__) != before


def test_old_folders_of_the_same_file_are_pruned(tmp_path: Path) -> None:
    now = time.time()
    old = {"m-a": 9.0, "m-b": 8.0, "m-d": 7.0, "other-a": 99.0, "m.n-a": 99.0}
    young = {"m-c": 0.5, "m-e": 0.1, "m-f": 0.2, "m-new": 0.0}
    for name, days in (old | young).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.nbi").write_text("")
        os.utime(tmp_path / name, (now - 86_400 * days,) * 2)
    compilation._prune(tmp_path / "m-new")
    # Besides the new one the three newest stay; of the others those older than a day go.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-c", "m-e", "m-f", "m-new", "m.n-a", "other-a"]

    for name in ("m-c", "m-e", "m-f"):
        os.utime(tmp_path / name, (now - 86_400 * 50,) * 2)
    compilation._prune(tmp_path / "m-new")
    assert len(list(tmp_path.glob("m-*"))) == compilation.KEPT_FOLDERS


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compilation.cache_root() == tmp_path
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    for platform, variable in (("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv(variable, str(tmp_path))
        assert compilation.cache_root() == tmp_path / "inmaterio" / "kernels"
        monkeypatch.delenv(variable)
        assert compilation.cache_root().is_relative_to(Path.home())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compilation.cache_root().is_relative_to(Path.home())


def _plus_one(x: float) -> float:
    """Docstring."""
    return x + 1.0


def _divide(x: float, y: float) -> float:
    return x / y


def _is_not_a_number(x: float) -> bool:
    return x != x


def test_the_options_of_every_kernel() -> None:
    assert kernel(_divide)(1.0, 0.0) == np.inf
    assert kernel(_is_not_a_number)(np.nan)
    compiled: Any = kernel(_plus_one)
    assert (compiled.__name__, compiled.__doc__) == ("_plus_one", "Docstring.")
    assert (compiled.targetoptions["fastmath"], compiled.targetoptions["error_model"]) == (False, "numpy")
    assert Path(compiled.stats.cache_path).parent == compilation.cache_root()


@pytest.mark.parametrize("signature", ["float64(float64)", ["float64(float64)", "float32(float32)"]])
def test_other_types_than_the_signature_are_refused(signature: str | list[str]) -> None:
    compiled: Any = kernel(signature=signature)(_plus_one)
    assert compiled(1.0) == 2.0
    with pytest.raises(TypeError, match="No matching definition"):
        compiled(np.zeros(3))


def test_without_compilation_the_function_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert kernel(_plus_one) is _plus_one
    assert kernel(parallel=True)(_plus_one) is _plus_one


def test_a_function_without_a_file_is_compiled_and_not_kept() -> None:
    names: dict[str, Any] = {"__name__": "typed_in"}
    exec(compile("def triple(x):\n    return 3 * x\n", "<typed in>", "exec"), names)
    compiled: Any = kernel(names["triple"])
    assert compiled(2) == 6
    assert compiled.stats.cache_path is None


@kernel(parallel=True)
def _draw_in_parallel(k0: np.uint64, k1: np.uint64, samples: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    for b in prange(out.shape[0]):
        out[b, 0], out[b, 1], out[b, 2], out[b, 3] = randomness.normal_block(k0, k1, 0, 0, samples[b])


@pytest.mark.skipif(compilation.config.NUMBA_NUM_THREADS < 2, reason="numba was started with one thread")
def test_threads_do_not_change_bits() -> None:
    key, samples = randomness.Key(5), np.arange(1000)
    k0, k1 = (np.uint64(word) for word in key.words())
    for threads in (1, 2):
        numba.set_num_threads(threads)
        out = np.zeros((1000, 4))
        _draw_in_parallel(k0, k1, samples, out)
        np.testing.assert_array_equal(out, randomness.normals(key, samples, 4))
