"""What made a version: code, packages, seed, flow run."""

import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from prefect.runtime import flow_run

from storage.records import Provenance

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "deltalake", "safetensors", "prefect")


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and, in a checkout, the commit; `+changed` where files differ from it."""
    version = metadata.version("volcast")
    command = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty=+changed", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version  # installed without its history
    return f"{version} ({described})"


def provenance(*, source: str, seed: int | None = None) -> Provenance:
    """The record that goes into every manifest written by the flow run that asks."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    return Provenance(code_version=code_version(), packages=packages, flow_run_id=flow_run.id, seed=seed, source=source)
