"""docs/store.md: its tables are the schemas, and its code reads a store by deltalake alone, as volcast does."""

import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from golden import GOLDEN

from benchmarks.programs import CODE
from volcast.storage import schemas
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.reports.views import latest_frame

PAGE = (CODE / "docs" / "store.md").read_text()
CODES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TABLES = ("prices", "forecasts", "scores", "quarantine", "restatements", "events")
TYPES = {"date": pa.date32(), "timestamp, UTC": pa.timestamp("us", tz="UTC")}  # the others are named as Arrow does
BY_ITSELF = """
import sys
{code}
assert not [name for name in sys.modules if name.partition(".")[0] == "volcast"]
for name in ("prices", "newest", "skill"):
    globals()[name].to_parquet(name + ".parquet")
"""


@pytest.mark.parametrize("table", TABLES)
def test_the_page_has_the_columns_of_each_table(table: str) -> None:
    section = PAGE.split(f"\n## {table}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*?) \|", section, re.MULTILINE)
    said = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    schema: pa.Schema = getattr(schemas, table.upper())
    assert list(said) == schema.names
    types = {name: TYPES.get(kind) or pa.type_for_alias(kind) for name, kind in said.items() if kind != "as above"}
    assert types == {name: schema.field(name).type for name in types}


def test_the_code_of_the_page_reads_what_volcast_reads(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "0.1.0" / "store" / "simulated-3", tmp_path / "data")
    command = [sys.executable, "-c", BY_ITSELF.format(code="\n".join(CODES))]
    subprocess.run(command, cwd=tmp_path, check=True)
    prices, newest, skill = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("prices", "newest", "skill"))
    store = open_store(str(tmp_path / "data"))
    own = PriceTable(store).read(["SBUX"])
    pd.testing.assert_frame_equal(prices.loc[:, own.columns], own, check_dtype=False, rtol=1e-12)
    latest = latest_frame(Ledger(store), "volume")
    same = ["ticker", "h", "median", "lo_80", "hi_80", "model", "why"]
    pd.testing.assert_frame_equal(newest.loc[:, same], latest.loc[:, same], check_dtype=False)
    scores = Ledger(store).scores("volume", first=date(2000, 1, 1)).query("h <= 5")
    scores["mase"] = scores["absolute_error"] / scores["scale"]
    mase = {model: own["mase"].mean() for model, own in scores.groupby("model")}
    assert dict(zip(skill["model"], skill["mase"], strict=True)) == pytest.approx(mase)
