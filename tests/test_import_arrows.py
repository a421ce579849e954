"""STYLE.md's table of imports, held against every module of the product."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "models", "storage")
NETWORK = {"requests", "httpx", "urllib", "socket", "aiohttp"}
FORBIDDEN = {
    "models": {"prefect", "storage", "tasks", "flows", "yfinance", "matplotlib"} | NETWORK,
    "storage": {"torch", "prefect", "models", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"torch", "pandas", "yfinance"},
}
ONLY_IN = {  # the module, or the package with a slash
    "yfinance": "tasks/sources/yahoo.py",
    "matplotlib": "tasks/reports/plots.py",
    "obstore": "storage/",
    "deltalake": "storage/",
    "pyarrow.fs": "storage/",
}
NEVER_IMPORTED = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
NEVER_USED = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle"}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def violations(source: str, path: str) -> list[str]:
    """What a module at `path` (relative to the root, with slashes) must not do."""
    tree = ast.parse(source)
    if path.endswith("__init__.py"):
        return [f"{path}: not empty"] if source.strip() else []
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            wrong.append(f"{path}:{node.lineno}: a relative import")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in NEVER_USED:
            wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
        line = getattr(node, "lineno", 0)
        wrong += [f"{path}:{line}: imports {name}" for name in _imported(node) if _is_forbidden(name, path)]
    return wrong


def _imported(node: ast.AST) -> Iterator[str]:
    """The full names that an import statement, or a call of import_module, brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _is_forbidden(name: str, path: str) -> bool:
    top = name.split(".")[0]
    elsewhere = any(f"{name}.".startswith(f"{owned}.") and not path.startswith(at) for owned, at in ONLY_IN.items())
    return elsewhere or top in FORBIDDEN[path.split("/")[0]] | NEVER_IMPORTED or name in NEVER_USED


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_along_the_arrows(path):
    assert violations(path.read_text(), path.relative_to(ROOT).as_posix()) == []


def test_every_package_has_modules_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize(
    ("path", "source", "fact"),
    [
        ("models/made_up.py", "import storage.store", "imports storage.store"),
        ("models/made_up.py", "def f():\n    from urllib.request import urlopen", "imports urllib.request.urlopen"),
        ("models/made_up.py", "import prefect as p", "imports prefect"),
        ("storage/made_up.py", "from models import sessions", "imports models.sessions"),
        ("storage/made_up.py", "if True:\n    import torch", "imports torch"),
        ("tasks/made_up.py", "from flows.cli import main", "imports flows.cli.main"),
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
        ("models/__init__.py", "from models import sessions", "not empty"),
    ],
)
def test_a_planted_violation_is_found(path, source, fact):
    (found,) = violations(source, path)
    assert found.startswith(path)
    assert found.endswith(fact)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tasks/sources/yahoo.py", "import yfinance\nfrom models.sessions import FIRST_DATE"),
        ("tasks/reports/plots.py", "import matplotlib.pyplot as plt"),
        ("flows/made_up.py", "from tasks.reports.render import report"),
        ("tasks/made_up.py", "import pyarrow as pa\nimport pyarrow.parquet as pq"),
        ("storage/made_up.py", "import obstore\nfrom deltalake import DeltaTable\nimport pyarrow.fs"),
        ("models/made_up.py", "import torch\nfrom torch import nn"),
        ("storage/__init__.py", ""),
    ],
)
def test_what_is_allowed_is_not_found(path, source):
    assert violations(source, path) == []
