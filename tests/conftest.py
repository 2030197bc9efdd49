"""One thread per library, repeatable hypothesis, and the engines of other people that physics is checked against."""

import os

# Before numpy, numba or torch is imported here or in a subprocess. numba may go up to two threads, for the tests that
# compare the bits of one and two.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["NUMBA_NUM_THREADS"] = "2"
os.environ["MPLBACKEND"] = "Agg"

import shutil
import signal
import sys
from pathlib import Path

import numba
import pytest
from hypothesis import settings

# Where the tests run in the background of a shell, SIGINT is ignored, and every command they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomised: a failure is the same on every machine. No deadline: the first call of a kernel compiles it.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Start every test with one thread in numba and, where it is loaded, in torch."""
    numba.set_num_threads(1)
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ngspice() -> Path:
    """Path of ngspice; skips where it is absent, fails where `INMATERIO_REQUIRE_ENGINES` is 1."""
    program = shutil.which("ngspice")
    if program is not None:
        return Path(program)
    if os.environ.get("INMATERIO_REQUIRE_ENGINES") == "1":
        pytest.fail("ngspice is not on PATH and INMATERIO_REQUIRE_ENGINES is 1: install the system package ngspice")
    pytest.skip("ngspice is not on PATH; the system package ngspice has it")


@pytest.fixture(params=["events", "spectra"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Delayed synapses computed in one of the two ways, whatever the count of work says."""
    monkeypatch.setattr("inmaterio.simulators.delayed_synapses.by_events", lambda *_: request.param == "events")
    return str(request.param)
