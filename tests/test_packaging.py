"""What is installed is what stands in the repository, and importing it has no surprises."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LAYERS = ("devices", "simulators", "learning_rules", "experiments")
SKIPPED = ("tests", "benchmarks", "notebooks", "docs", "runs", "build", "dist")


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def packages_in_folders(root: Path) -> dict[str, str]:
    """Every package of the repository, by import name: its folder."""
    return {
        "inmaterio." + ".".join(folder.parts): folder.as_posix()
        for found in root.rglob("__init__.py")
        if not (folder := found.parent.relative_to(root)).parts[0].startswith(".") and folder.parts[0] not in SKIPPED
    }


def test_every_folder_is_a_listed_package(repository: Path) -> None:
    setup = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = packages_in_folders(repository)
    assert set(LAYERS) <= set(found.values())
    assert sorted(setup["packages"]) == sorted(found)
    # A sub-package is found below its parent's folder; only the four need a place of their own.
    assert setup["package-dir"] == {f"inmaterio.{layer}": layer for layer in LAYERS}


def test_every_package_is_typed(repository: Path) -> None:
    for folder in packages_in_folders(repository).values():
        assert (repository / folder / "py.typed").is_file(), folder


def test_only_lower_bounds(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    assert all(line.count(">=") == 1 and not set(line) & set("<!~,;@") for line in wanted), wanted


def test_constraints_pin_every_dependency(repository: Path) -> None:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}
    assert all(str(pin.specifier).startswith("==") and pin.url is None for pin in pins.values())
    assert len(pins) == len(lines)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["test"], *extras["docs"]]:
        wanted = Requirement(line)
        pin = pins[canonicalize_name(wanted.name)]
        version = str(pin.specifier).removeprefix("==")
        assert wanted.specifier.contains(version), f"{pin} is outside {line}"


@pytest.mark.parametrize("layer", LAYERS)
def test_bare_name_is_refused(repository: Path, layer: str) -> None:
    result = python(f"import {layer}", cwd=repository)
    assert result.returncode == 1
    assert f"ImportError: import 'inmaterio.{layer}', not '{layer}'" in result.stderr


def test_devices_and_simulators_do_not_import_torch(repository: Path, tmp_path: Path) -> None:
    modules = [
        ".".join(("inmaterio", *file.relative_to(repository).with_suffix("").parts))
        for layer in ("devices", "simulators")
        for file in sorted((repository / layer).rglob("*.py"))
        if file.name != "__init__.py"
    ]
    assert len(modules) > 5
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name + ' imports torch')\n"
    )
    result = python(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel_names(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the wheel that pip builds from a copy of the checkout without network."""
    source = tmp_path_factory.mktemp("source")
    for name in (*LAYERS, "pyproject.toml", "README.md", "LICENSE"):
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(repository / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(target), str(source)],
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = target.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_file_of_the_packages(repository: Path, wheel_names: set[str]) -> None:
    wanted = {
        "inmaterio/" + file.relative_to(repository).as_posix()
        for layer in LAYERS
        for file in (repository / layer).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {
        "inmaterio/devices/costs.csv",
        "inmaterio/experiments/formants.csv",
        *(f"inmaterio/{layer}/py.typed" for layer in LAYERS),
    } <= wheel_names
    assert any(name.startswith("inmaterio/experiments/templates/") for name in wheel_names)
    assert any(name.startswith("inmaterio/experiments/tuned/") and name.endswith(".toml") for name in wheel_names)
    assert {name for name in wheel_names if ".dist-info/" not in name} == wanted


def test_wheel_is_a_namespace_with_one_command(wheel_names: set[str]) -> None:
    assert "inmaterio/__init__.py" not in wheel_names
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_names)
    assert any(name.endswith("/licenses/LICENSE") for name in wheel_names)
