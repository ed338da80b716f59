"""The wheel holds the four packages with what they need to run, and nothing else."""

import configparser
import email
import io
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"agent", "store", "policies", "service"}
DATA = [
    "policies/default.cedar",
    "policies/schema.cedarschema",
    "agent/suites/retention.jsonl",
    "agent/suites/everyday.jsonl",
    "service/web/index.html",
    "service/web/app.js",
    "service/web/style.css",
    "service/systemd/honed.service",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def dist_info(files: dict[str, bytes], name: str) -> str:
    (path,) = (path for path in files if path.endswith(f".dist-info/{name}"))
    return files[path].decode()


def test_the_wheel_is_for_every_machine(wheel: Path) -> None:
    assert wheel.name.startswith("honed-")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_the_four_packages_and_their_metadata_only(files: dict[str, bytes]) -> None:
    roots = {name.split("/")[0] for name in files}
    assert {root for root in roots if not root.endswith(".dist-info")} == PACKAGES
    assert len(roots) == len(PACKAGES) + 1


def test_every_module_of_the_source_is_in_the_wheel_and_no_other(files: dict[str, bytes]) -> None:
    here = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in files if name.endswith(".py")} == here


@pytest.mark.parametrize("name", DATA)
def test_data_that_the_program_reads_is_in_the_wheel_as_it_is_here(files: dict[str, bytes], name: str) -> None:
    assert files[name] == (ROOT / name).read_bytes()


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_package_says_that_it_is_typed(files: dict[str, bytes], package: str) -> None:
    assert f"{package}/py.typed" in files


def test_nothing_left_over_from_running_is_in_the_wheel(files: dict[str, bytes]) -> None:
    endings = (".pyc", ".db", ".log", ".tmp", ".safetensors", ".gguf", ".swp", ".orig")
    assert [name for name in files if name.endswith(endings) or "__pycache__" in name] == []
    assert [name for name in files if "test" in name.split("/")[-1]] == []


def test_the_wheel_installs_the_command_and_it_is_there(files: dict[str, bytes]) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_file(io.StringIO(dist_info(files, "entry_points.txt")))
    assert dict(scripts["console_scripts"]) == {"honed": "service.cli:main"}
    assert b"\ndef main(" in files["service/cli/__init__.py"]


def test_the_metadata_names_the_licence_the_python_and_every_library(files: dict[str, bytes]) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = email.message_from_string(dist_info(files, "METADATA"))
    assert metadata["License-Expression"] == project["license"]
    assert metadata["Requires-Python"] == project["requires-python"]
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == len(project["dependencies"])
    assert any(name.endswith("/licenses/LICENSE") for name in files)


def test_no_other_installed_distribution_provides_these_packages() -> None:
    others = [found for found in distributions() if found.name != "honed"]
    assert len(others) > 30
    taken = {(found.name, file.parts[0]) for found in others for file in found.files or () if file.parts[0] in PACKAGES}
    assert taken == set()
