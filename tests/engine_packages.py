"""Packages of other people that physics is checked against: where one is absent its tests skip, or fail where they must run."""

import importlib.util
import os

import pytest


def require_package(name: str) -> None:
    """Skip the test where the package is absent; fail where `INMATERIO_REQUIRE_ENGINES` is 1."""
    if importlib.util.find_spec(name) is None:
        missing = f"{name} is not installed; the extra `spiking` has it"
        if os.environ.get("INMATERIO_REQUIRE_ENGINES") == "1":
            pytest.fail(f"INMATERIO_REQUIRE_ENGINES is 1 and {missing}")
        pytest.skip(missing)
