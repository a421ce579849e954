"""The table of imports in docs/design.md, held against every module of the product."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "models", "storage")
NETWORK = {"requests", "httpx", "urllib", "http", "socket", "aiohttp", "curl_cffi"}
FILES = {"os", "pathlib", "shutil", "tempfile", "glob", "sqlite3"}
FILES_OF_MEMORY = "models/arrays.py"  # what is too large for the memory is a temporary file, of which only it knows
FORBIDDEN = {
    "models": {"storage", "tasks", "flows"} | NETWORK | FILES,
    "storage": {"models", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"torch", "pandas", "yfinance"},
    "volcast": {"flows", "prefect"},
}
LIBRARIES = {  # beside Python's own, all that the package may import
    "models": {
        "torch",
        "numpy",
        "pandas",
        "sklearn",
        "scipy",
        "threadpoolctl",
        "exchange_calendars",
        "safetensors",
        "utilsforecast",
    },
    "storage": {"pyarrow", "deltalake", "obstore", "pandas", "numpy", "pydantic"},
}
FOR_FLOWS = {  # of models and storage: records, errors, names and words, and what opens a store
    "models.calendar_names",
    "models.errors",
    "models.point_names",
    "models.text",
    "storage.artifacts",
    "storage.errors",
    "storage.locations",
    "storage.records",
    "storage.store",
}
ONLY_IN = {  # the module, or the package with a slash
    "yfinance": "tasks/sources/yahoo.py",
    "matplotlib": "tasks/reports/plots.py",
    "obstore": "storage/",
    "deltalake": "storage/",
    "pyarrow.fs": "storage/",
}
OPENS_A_FILE = {"open", "read_csv", "read_parquet", "read_json", "to_csv", "tofile", "savez", "save_file", "load_file"}
NEVER_IMPORTED = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
NEVER_USED = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle"}
FACE = {ROOT / "volcast" / f"{name}.py" for name in ("__init__", "adapters", "flavor", "frames", "prices", "stores")}
MODULES = sorted([*(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), *FACE])


def violations(source: str, path: str) -> list[str]:
    """What a module at `path` (relative to the root, with slashes) must not do."""
    tree = ast.parse(source)
    if path.endswith("__init__.py") and not path.startswith("volcast/"):
        return [f"{path}: not empty"] if source.strip() else []
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            wrong.append(f"{path}:{node.lineno}: a relative import")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in NEVER_USED:
            wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and path.startswith("models/") and _called(node) in OPENS_A_FILE:
            wrong.append(f"{path}:{node.lineno}: calls {_called(node)}")
        line = getattr(node, "lineno", 0)
        wrong += [f"{path}:{line}: imports {name}" for name in _imported(node) if _is_forbidden(_own(name), path)]
    return wrong


def _imported(node: ast.AST) -> Iterator[str]:
    """The full names that an import statement, or a call of import_module, brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    if isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
        yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _own(name: str) -> str:
    """`volcast.models.x` as `models.x`; a library's name as it is."""
    return name.removeprefix("volcast.")


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).split(".")[-1]


def _is_forbidden(name: str, path: str) -> bool:
    package, top = path.split("/")[0], name.split(".")[0]
    is_elsewhere = any(f"{name}.".startswith(f"{owned}.") and not path.startswith(at) for owned, at in ONLY_IN.items())
    is_library = top not in sys.stdlib_module_names and top not in PACKAGES
    is_unlisted = is_library and top not in LIBRARIES.get(package, {top})
    is_deep = package == "flows" and top in ("models", "storage") and ".".join(name.split(".")[:2]) not in FOR_FLOWS
    allowed = {"os", "tempfile"} if path == FILES_OF_MEMORY else set()
    is_named = top in (FORBIDDEN[package] | NEVER_IMPORTED) - allowed or name in NEVER_USED
    return is_elsewhere or is_unlisted or is_deep or is_named


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_along_the_arrows(path):
    assert violations(path.read_text(), path.relative_to(ROOT).as_posix()) == []


def test_every_package_has_modules_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == {*PACKAGES, "volcast"}


@pytest.mark.parametrize(
    ("path", "source", "fact"),
    [
        ("models/made_up.py", "import volcast.storage.store", "imports volcast.storage.store"),
        ("models/made_up.py", "def f():\n    from urllib.request import urlopen", "imports urllib.request.urlopen"),
        ("models/made_up.py", "import prefect as p", "imports prefect"),
        ("models/made_up.py", "from pathlib import Path", "imports pathlib.Path"),
        ("models/made_up.py", "import pyarrow.parquet", "imports pyarrow.parquet"),
        ("models/made_up.py", "import pandas as pd\npd.read_csv('x')", "calls read_csv"),
        ("models/made_up.py", "def f(path):\n    return open(path)", "calls open"),
        ("storage/made_up.py", "from prefect import task", "imports prefect.task"),
        ("storage/made_up.py", "import httpx", "imports httpx"),
        ("storage/made_up.py", "from matplotlib.figure import Figure", "imports matplotlib.figure.Figure"),
        ("flows/made_up.py", "import torch", "imports torch"),
        (
            "flows/made_up.py",
            "from volcast.storage.prices import PriceTable",
            "imports volcast.storage.prices.PriceTable",
        ),
        ("flows/made_up.py", "from volcast.models.har import Har", "imports volcast.models.har.Har"),
        ("storage/made_up.py", "from volcast.models import sessions", "imports volcast.models.sessions"),
        ("storage/made_up.py", "if True:\n    import torch", "imports torch"),
        ("tasks/made_up.py", "from volcast.flows.cli import main", "imports volcast.flows.cli.main"),
        ("tasks/made_up.py", "import yfinance", "imports yfinance"),
        ("tasks/sources/yahoo.py", "import matplotlib.pyplot as plt", "imports matplotlib.pyplot"),
        ("tasks/made_up.py", "import obstore", "imports obstore"),
        ("flows/made_up.py", "from deltalake.exceptions import DeltaError", "imports deltalake.exceptions.DeltaError"),
        ("tasks/made_up.py", "from pyarrow import fs", "imports pyarrow.fs"),
        ("tasks/made_up.py", "import pyarrow.fs", "imports pyarrow.fs"),
        ("flows/made_up.py", "import importlib\nimportlib.import_module('pandas')", "imports pandas"),
        ("tasks/made_up.py", "import pickle", "imports pickle"),
        ("models/made_up.py", "import torch\ntorch.load('x')", "torch.load"),
        ("models/made_up.py", "from torch import save", "imports torch.save"),
        ("models/made_up.py", "from . import sessions", "a relative import"),
        ("models/__init__.py", "from volcast.models import sessions", "not empty"),
        ("volcast/made_up.py", "from volcast.flows.cli import main", "imports volcast.flows.cli.main"),
        ("volcast/made_up.py", "from prefect import task", "imports prefect.task"),
    ],
)
def test_a_planted_violation_is_found(path, source, fact):
    (found,) = violations(source, path)
    assert found.startswith(path)
    assert found.endswith(fact)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tasks/sources/yahoo.py", "import yfinance\nfrom volcast.models.sessions import FIRST_DATE"),
        ("tasks/reports/plots.py", "import matplotlib.pyplot as plt"),
        ("flows/made_up.py", "from volcast.tasks.reports.render import report"),
        (
            "flows/made_up.py",
            "from volcast.storage.records import Snapshot\nfrom volcast.models.errors import ModelError",
        ),
        ("tasks/made_up.py", "import pyarrow as pa\nimport pyarrow.parquet as pq"),
        ("storage/made_up.py", "import obstore\nfrom deltalake import DeltaTable\nimport pyarrow.fs"),
        ("models/made_up.py", "import torch\nfrom torch import nn"),
        ("storage/__init__.py", ""),
    ],
)
def test_what_is_allowed_is_not_found(path, source):
    assert violations(source, path) == []


def test_the_benchmark_of_a_gpu_needs_the_libraries_of_models_alone():
    """Such a machine has torch, and seldom Prefect or Delta Lake."""
    program = (
        "import sys\n"
        "import benchmarks.gpu, test_gpu\n"
        "print(sorted({'prefect', 'pydantic', 'deltalake', 'obstore', 'yfinance', 'cyclopts'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
