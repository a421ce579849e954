"""Input of every kind that nobody would give on purpose: no traceback, no page of words, nothing written outside.

`VOLCAST_FUZZ=50` tries 50 times as many, at random (`make fuzz`: 100,000); the usual 2,000 are always the same. What
a person would read is asked of the command line itself, which says when it did not foresee an error.
"""

import io
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrors
from prefect.exceptions import ParameterTypeError, SignatureMismatchError
from programs import Volcast
from rows import yahoo_frame

from volcast.flows.cli import LONGEST, _described, app
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.settings import BacktestSettings, DataSettings, RetrainSettings, TrainingSettings, WatchSettings
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.validate_prices import price_rules

# hypothesis looks whether a strategy changes the state of `random`, and takes what another thread of this process does
# meanwhile (Prefect's) for that. Drop when it looks at its own thread alone.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

GOLDEN = Path(__file__).parent / "data" / "golden" / "0.1.0" / "store"
MANY = int(os.environ.get("VOLCAST_FUZZ", "1"))
REFUSED = (ParameterTypeError, SignatureMismatchError)  # of Prefect, which name the parameter
KINDS = [DataSettings, TrainingSettings, WatchSettings, RetrainSettings, BacktestSettings]
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["", "../..", "\0", "%00", "9" * 400, "-1", "1e999", "nan", "files:", "simulated:", "s3://", "🂡"]),
)
JSON = st.recursive(WRONG, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


def times(usual: int) -> settings:
    """The usual number of examples, or as many times it as were asked for."""
    return settings(
        max_examples=MANY * usual,
        derandomize=MANY == 1,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if MANY > 1 else [])],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@contextmanager
def foreseen() -> Iterator[None]:
    """Whatever is raised is an error that the command line has words for, and few of them."""
    try:
        yield
    except REFUSED:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is
        words, _ = _described(error)
        assert "not foreseen" not in words, words
        assert "\n" not in words


# --- settings, on the command line, as JSON of Prefect's API --------------------------------------------------------


@times(700)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_settings_are_taken_or_refused_in_a_line(data: st.DataObject, kind: type[DataSettings]) -> None:
    names = st.sampled_from([*kind.model_fields, "nonsense"])
    given_settings = data.draw(st.dictionaries(names, JSON, max_size=3))
    with foreseen():
        made = kind.model_validate_json(json.dumps(given_settings))
        if isinstance(made, TrainingSettings):
            made.make()
        elif isinstance(made, BacktestSettings):
            made.recipe()


@times(300)
@given(
    name=st.text(max_size=12) | st.sampled_from(["steps", "members", "features", "cell", "learning_rate"]), value=JSON
)
def test_settings_of_a_recipe_are_taken_or_refused_in_a_line(name: str, value: object) -> None:
    with foreseen():
        TrainingSettings.model_validate({"settings": {name: value}}).make()


COMMANDS = ["status", "quarantine", "retrain", "forecast", "monitor", "report", "verify", "gc", "backtest"]
COMMANDS += ["models list", "models compare", "models show", "models promote", "models rollback", "nonsense"]
OPTIONS = sorted({name for command in app if command in COMMANDS for each in app[command].assemble_argument_collection()
                  for name in each.names})  # fmt: skip


@times(250)
@given(
    command=st.sampled_from(COMMANDS),
    words=st.lists(st.sampled_from([*OPTIONS, "--nonsense"]) | st.text(max_size=20), max_size=5),
)
def test_any_command_line_is_answered_in_a_line(
    command: str, words: list[str], volcast: Volcast, tmp_path: Path
) -> None:
    assume(not {"--help", "--debug"} & set(words))
    said = volcast(*command.split(), *words)
    assert not said.has_traceback
    assert said.code in (0, 1, 2)
    assert len(said.errors) == (said.code != 0)
    assert all("not foreseen" not in line and len(line) < LONGEST + 100 for line in said.errors)
    assert list(tmp_path.iterdir()) == []  # there is no store, and none is made


# --- files of prices ------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.dates(date(1900, 1, 1), date(2100, 1, 1)).map(str),
    st.sampled_from(["", "-", "null", "1,234", "1.234,5", "$5", "5.2M", "12%", "-0", "1e400", "2020-02-30", "TRUE"]),
    st.text(max_size=6),
)
BYTES = yahoo_frame(30).to_csv(index=False).encode()


@times(350)
@given(
    cells=st.dictionaries(st.tuples(st.integers(0, 29), st.integers(0, 6)), CELLS, max_size=6),
    headings=st.dictionaries(st.integers(0, 6), st.text(max_size=10) | st.sampled_from(["Date", "Volume", "Name"])),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
@example(cells={(10, 4): "1.7796828705611862e+302"}, headings={}, separator=",", encoding="utf-8")
@example(cells={(0, 4): "2.225073858507e-311"}, headings={}, separator=",", encoding="utf-8")
def test_a_table_with_odd_cells_is_read_or_refused_in_a_line(
    cells: dict[tuple[int, int], str], headings: dict[int, str], separator: str, encoding: str, tmp_path: Path
) -> None:
    frame = yahoo_frame(30).astype("object")
    for (row, column), cell in cells.items():
        frame.iloc[row, column] = cell
    frame.columns = [headings.get(number, name) for number, name in enumerate(frame.columns)]
    content = frame.to_csv(index=False, sep=separator).encode(encoding, errors="replace")
    look_at(tmp_path / "SBUX.csv", content)


@times(250)
@given(data=st.data(), suffix=st.sampled_from([".csv", ".parquet"]))
def test_a_file_with_odd_bytes_is_read_or_refused_in_a_line(data: st.DataObject, suffix: str, tmp_path: Path) -> None:
    look_at(tmp_path / f"SBUX{suffix}", changed(bytes_of(suffix), data))


def bytes_of(suffix: str) -> bytes:
    if suffix == ".csv":
        return BYTES
    whole = io.BytesIO()
    yahoo_frame(30).to_parquet(whole)
    return whole.getvalue()


def changed(content: bytes, data: st.DataObject) -> bytes:
    """Some bytes replaced, taken out or put in."""
    for _ in range(data.draw(st.integers(1, 3))):
        place, size = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 1, 8, 10_000]))
        content = content[:place] + data.draw(st.binary(max_size=16)) + content[place + size :]
    return content


def look_at(path: Path, content: bytes) -> None:
    """What is taken out of the file are bars that the rules can judge."""
    path.write_bytes(content)
    with foreseen():
        source = FilesSource(str(path))
        for ticker in source.tickers():
            fetched = source.fetch(ticker, first=None, last=date(2100, 1, 1))
            assert "\n" not in fetched.known
            if len(fetched.bars):
                with suppress(SchemaErrors):  # rows that break a rule
                    price_rules().validate(fetched.bars, lazy=True)


# --- stores ---------------------------------------------------------------------------------------------------------


@times(60)
@given(data=st.data(), seed=st.integers(0, 10**9))
def test_a_damaged_store_is_read_or_named_in_a_line(data: st.DataObject, seed: int, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(GOLDEN, root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for path in random.Random(seed).sample(files, 2):
        content = path.read_bytes()
        if path.suffix == ".json" and data.draw(st.booleans()):
            first = content.splitlines()[0] if "_delta_log" in path.parts else content  # a log has an action a line
            path.write_text(json.dumps(odd(json.loads(first), data)))
        else:
            path.write_bytes(changed(content, data))
    before = sorted(tmp_path.iterdir())
    with foreseen():
        assert all("\n" not in finding.words for finding in verify(open_store(str(root))))
    store = open_store(str(root))
    artifacts = ArtifactStore(store)
    for look in (
        lambda: PriceTable(store).read(),
        lambda: Ledger(store).forecasts("volume", first=date(1900, 1, 1)),
        lambda: [artifacts.walk(artifacts.get(*each)) for each in artifacts.all_versions()],
        lambda: [artifacts.history(*each) for each in artifacts.aliases()],
    ):
        with foreseen():
            look()
    assert sorted(tmp_path.iterdir()) == before


def odd(content: object, data: st.DataObject) -> object:
    """A JSON object with one value replaced, or one key gone."""
    if not isinstance(content, dict) or not content:
        return data.draw(JSON)
    key = data.draw(st.sampled_from(sorted(content)))
    if data.draw(st.booleans()):
        return {name: value for name, value in content.items() if name != key}
    return content | {key: odd(content[key], data)}


# --- what Prefect's API hands to a deployment -----------------------------------------------------------------------


@times(150)
@given(data=st.data(), name=st.sampled_from(["daily", "retrain", "pipeline", "forecast", "ingest", "backtest"]))
def test_parameters_of_a_run_are_taken_or_refused_before_it_begins(data: st.DataObject, name: str) -> None:
    flow = pytest.importorskip(f"volcast.flows.{name}")
    parameters = data.draw(
        st.dictionaries(st.sampled_from(["data", "training", "why", "watch", "x"]), JSON, max_size=3)
    )
    with suppress(*REFUSED), foreseen():
        getattr(flow, name).validate_parameters(parameters)
