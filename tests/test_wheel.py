"""The wheel, installed where no checkout is, in the folder of somebody who has packages of the same names as ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from programs import copy_project, project

from benchmarks.programs import CODE, Up, run_volcast

pytestmark = pytest.mark.service

TAKEN = ("models", "tasks", "flows", "storage")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves files where it is made; without network, as setuptools is there."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_project(folder / "checkout")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, *build, str(folder / "checkout")], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of an environment with the wheel in it; all that it needs is this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("-packages")]
    (packages / "shared.pth").write_text("\n".join(shared))
    return packages


class Installed(Up):
    """`volcast up` of the wheel."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.program = [str(site.parents[2] / "bin" / "volcast")]
        super().__init__(folder, PYTHONPATH=str(folder))

    def volcast(self, *arguments: str) -> str:
        """What a command prints; it must succeed."""
        done = run_volcast(self.folder, *arguments, program=self.program, PYTHONPATH=str(self.folder))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def up(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("desk")
    for name in TAKEN:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('this is the package of somebody else')\n")
    with Installed(site, folder) as started:
        yield started


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    folders = [CODE / "volcast", *(CODE / name for name in TAKEN)]
    own = {path.relative_to(CODE) for folder in folders for path in folder.rglob("*") if path.is_file()}
    own = {path if path.parts[0] == "volcast" else "volcast" / path for path in own if "__pycache__" not in path.parts}
    with ZipFile(wheel) as built:
        held = {Path(name) for name in built.namelist() if name.startswith("volcast/")}
    assert held == own


def test_the_version_of_the_wheel_is_not_that_of_somebody_elses_repository(site: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(site), "-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "theirs"], check=True)
    command = [str(site.parents[2] / "bin" / "volcast"), "--version"]
    said = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, check=True)
    assert said.stdout == b"volcast 0.1.0\n"


def test_in_a_folder_with_packages_of_the_same_names_all_of_it_works(up: Installed, site: Path) -> None:
    before = {path for path in site.rglob("*") if "__pycache__" not in path.parts}
    assert set(up.deployments) == {each["name"] for each in project()["deployments"]}
    pool = up.api.get("/work_pools/volcast").json()
    assert pool["base_job_template"]["job_configuration"]["command"].startswith(str(site.parents[2]))
    assert Path(f"/proc/{up.part('server')}/cwd").readlink() == up.folder / "home"
    assert "2004-06-28" in up.volcast("ingest", "--tickers", "SBUX", "--as-of", "2004-06-28")
    assert "Median and 80 % interval" in up.volcast("forecast", "--as-of", "2004-06-28")
    run = up.run("daily", data={"tickers": ["SBUX"], "as_of": "2004-06-29"})
    assert up.ended(run)["type"] == "COMPLETED"
    assert (up.folder / "data" / "simulated-0" / "reports" / "volume" / "latest.html").is_file()
    assert "applied daily, retrain" in up.volcast("deploy")  # for the source is now `simulated:0`, of the first ingest
    checks = json.loads(up.volcast("doctor", "--json"))["checks"]
    assert {each["of"] for each in checks} >= {"versions", "store", "source", "service"}
    assert {path.name for path in up.folder.iterdir()} == {*TAKEN, "data", "home", "client", "up.log"}
    assert {path for path in site.rglob("*") if "__pycache__" not in path.parts} == before
