import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import time_machine
from golden import COMMANDS
from programs import Volcast
from rows import yahoo_frame

from benchmarks.programs import VOLCAST, environment
from volcast.flows.cli import app, console
from volcast.tasks.doctor import checks_of
from volcast.tasks.run_tools import code_version
from volcast.tasks.settings import BacktestSettings, TrainingSettings

pytestmark = pytest.mark.usefixtures("prefect_api")

TUTORIAL = ("--recipe", "tutorial")


def no_volume(path: Path) -> None:
    yahoo_frame().drop(columns="Volume").to_csv(path, index=False)


def text_in_a_number(path: Path) -> None:
    frame = yahoo_frame().astype({"Volume": "object"})
    frame.loc[3, "Volume"] = "lots"
    frame.to_csv(path, index=False)


BAD_FILES = {
    "a missing file": (lambda _: None, "SBUX.csv: there is no such file or folder"),
    "no Volume": (no_volume, "SBUX.csv: no column Volume"),
    "an empty file": (lambda path: path.write_text(""), "SBUX.csv: the file is empty"),
    "text in a number": (text_in_a_number, "'lots' is not a number"),
    "a heading only": (lambda path: yahoo_frame().head(0).to_csv(path, index=False), "no rows"),
    "too few rows": (lambda path: yahoo_frame(200).to_csv(path, index=False), "SBUX: 200 sessions came"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_line_and_exit_1(case: str, volcast: Volcast, tmp_path: Path) -> None:
    make, expected = BAD_FILES[case]
    make(tmp_path / "SBUX.csv")
    said = volcast("run", *TUTORIAL, "--source", "files:SBUX.csv", "--store", "data")
    assert said.code == 1
    assert len(said.errors) == 1
    assert expected in said.errors[0]
    assert not said.has_traceback


BAD_REQUESTS = [
    (["--tickers", "ZZZZ"], 1, "ZZZZ: not found: SBUX.csv holds SBUX"),
    (["--recipe", "nonsense"], 2, "There is no recipe 'nonsense'. Known recipes: tutorial, volume"),
    (["--source", "nonsense"], 2, "'nonsense' is not a source. Expected one of"),
    (["--store", "SBUX.csv/data"], 1, "expected a root that can be written"),
    (["--as-of", "2100-01-01"], 1, "--as-of 2100-01-01 is still to come"),
    (["--set", "steps"], 2, "--set must be NAME=VALUE, such as steps=1000; 'steps' came"),
    (["--set", "epochs=0"], 2, "epochs must be a whole number from 1 to 1,000,000; 0 came"),
    (["--set", "name=volume"], 2, "name is no setting: the recipe itself is chosen by --recipe"),
    (["--set", "features=5"], 2, "features must be one or more of ['open', 'high', 'low', 'close', 'adj_close']"),
    (["--set", 'features=[["open"]]'], 2, "expected a number, a word or a list of them"),
    (["--set", "epochs=" + "[" * 100_000], 2, "(100,002 characters) came"),
    (["--set", "epochs=" + "9" * 5_000], 2, "(5,002 characters) came"),
    (["--set", "=5"], 2, "--set must be NAME=VALUE, such as steps=1000; '=5' came"),
    (["--set", "x" * 5_000 + "=1"], 2, "Recipe tutorial has no setting xxx"),
    (["--seed", "-1"], 2, "--seed: Input should be greater than or equal to 0; -1 came"),
    (["--source", "x" * 5_000], 2, "(5,002 characters) is not a source"),
    (["--source", "simulated:" + "9" * 5_000], 2, "expected simulated[:SEED]"),
    (["--source", "simulated", "--store", ""], 1, "The store's root is empty"),
    (["--source", "simulated", "--store", "memory://"], 1, "open a folder or a bucket"),
    (["--store", "~nobody-of-this-name/data"], 1, "Could not determine home directory"),
    (["--store", "x/" * 5_000], 1, "characters more)"),
    (["--cell", "gru"], 2, "Recipe tutorial has no setting cell"),
    (["--sessions", "many"], 2, "--sessions must be a whole number or 'all'"),
    (["--sessions", "200"], 2, "window_sessions must be"),
    (["--name", "../champion"], 2, "name"),
    (["--out", "forecasts.pdf"], 1, "expected a name that ends in .parquet or .csv or .xlsx"),
    (["--out", "nowhere/forecasts.csv"], 1, "there is no folder"),
]


@pytest.mark.parametrize(("options", "code", "expected"), BAD_REQUESTS)
def test_a_bad_request_is_one_clear_line(
    options: list[str], code: int, expected: str, volcast: Volcast, sbux_csv: Path
) -> None:
    said = volcast("run", *TUTORIAL, "--source", f"files:{sbux_csv.name}", "--store", "data", *options)
    assert said.code == code
    assert len(said.errors) == 1
    assert expected in said.errors[0]
    assert len(said.errors[0]) < 1_100
    assert not said.has_traceback


def test_of_thousands_of_tickers_the_first_are_named_and_the_others_counted(volcast: Volcast, sbux_csv: Path) -> None:
    assert volcast("ingest", "--source", f"files:{sbux_csv.name}").code == 0
    absent = ",".join(f"T{number:04}" for number in range(3_000))
    for *command, tickers in (
        ("status", "--tickers", absent),
        ("report", "--tickers", f"SBUX,{absent}"),
        ("ingest", "--source", f"files:{sbux_csv.name}", "--tickers", absent),
    ):
        said = volcast(*command, tickers)
        assert said.code == 1
        assert "T0" in said.errors[0]
        assert said.errors[0].count(" more") == 1
        assert len(said.errors[0]) < 700


def test_cuda_where_there_is_none_is_one_clear_line(volcast: Volcast, sbux_csv: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    said = volcast("run", *TUTORIAL, "--source", f"files:{sbux_csv.name}", "--device", "cuda")
    assert said.code == 1
    assert "torch sees no CUDA device" in said.errors[0]


def test_an_unknown_option_is_a_usage_error(volcast: Volcast) -> None:
    said = volcast("run", "--nonsense")
    assert said.code == 2
    assert said.errors[0].startswith("Error: Unknown option: --nonsense.")
    assert said.errors[0].endswith("See: volcast run --help")


def test_the_version_is_that_of_the_code_and_no_option_of_a_command(volcast: Volcast) -> None:
    said = volcast("--version")
    assert (said.code, said.out) == (0, f"volcast {code_version()}\n")
    assert "requires an argument" in volcast("models", "promote", "volume", "--version").errors[0]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("", "models")])
def test_the_help_of_each_command_ends_with_an_example_that_can_be_typed(name: str, volcast: Volcast) -> None:
    words = shlex.split(volcast(*name.split(), "--help").out.rpartition("Example: ")[2])
    typed = words[words.index("volcast") + 1 :]
    assert typed[: len(name.split())] == name.split()
    app.parse_args(typed, exit_on_error=False, print_error=False)


def test_the_help_of_a_command_is_made_of_the_fields_of_its_settings(volcast: Volcast) -> None:
    said = volcast("backtest", "--help")
    assert said.code == 0
    for option in ("--train-through", "--refit", "--set", "--cell", "--events", "--sessions"):
        assert (option in said.out) == (option != "--sessions")
    shown = re.sub(r"[│\s]+", " ", said.out)
    for field in (BacktestSettings.model_fields["refit"], TrainingSettings.model_fields["cell"]):
        assert str(field.description) in shown


def test_of_an_option_that_is_given_twice_the_last_one_holds(volcast: Volcast) -> None:
    said = volcast("run", "--recipe", "first", "--recipe", "last")
    assert "There is no recipe 'last'" in said.errors[0]


def test_a_bad_run_loses_nothing_of_an_earlier_one(volcast: Volcast, sbux_csv: Path) -> None:
    source = f"files:{sbux_csv.name}"
    assert volcast("run", *TUTORIAL, "--source", source, "--store", "data", "--out", "first.csv").code == 0
    sbux_csv.write_text(sbux_csv.read_text().replace("2020-12-09", "yesterday"))
    said = volcast("run", *TUTORIAL, "--source", source, "--store", "data")
    assert (said.code, "'yesterday' is not a date" in said.errors[0]) == (1, True)
    assert volcast("forecast", *TUTORIAL, "--store", "data", "--out", "second.csv").code == 0
    pd.testing.assert_frame_equal(pd.read_csv("first.csv"), pd.read_csv("second.csv"))


def test_the_steps_one_by_one_give_what_run_gives(volcast: Volcast, sbux_csv: Path) -> None:
    source = f"files:{sbux_csv.name}"
    assert volcast("run", *TUTORIAL, "--source", source, "--store", "whole", "--out", "whole.parquet").code == 0
    for command in (
        ["ingest", "--source", source],
        ["retrain", *TUTORIAL],
    ):
        assert volcast(*command, "--store", "steps").code == 0
    told = json.loads(volcast("forecast", *TUTORIAL, "--store", "steps", "--out", "steps.parquet", "--json").out)
    assert (len(told["forecasts"]), len(told["rows"]), told["rows"][0]["unique_id"]) == (1, 253, "SBUX")
    pd.testing.assert_frame_equal(pd.read_parquet("whole.parquet"), pd.read_parquet("steps.parquet"))


def test_the_summary_says_what_there_is_and_where(volcast: Volcast, sbux_csv: Path) -> None:
    said = volcast("run", *TUTORIAL, "--source", f"files:{sbux_csv.name}", "--store", "data", "--fit-scalers-on", "all")
    assert said.code == 0
    for words in (
        f"v0 of files:{sbux_csv.name}: 253 rows of SBUX",
        "to 2020-12-10",
        "on cpu",
        "final loss 0.",
        "least_squares",
        "Same-session nowcast",
        "the scalers were fitted on the test sessions too",
        "data/reports/tutorial.SBUX/v1/predicted.png",
        "data/reports/tutorial.SBUX/v1/forecast.parquet",
        "UI",
    ):
        assert words in said.out
    again = volcast(
        "run", *TUTORIAL, "--source", f"files:{sbux_csv.name}", "--store", "data", "--fit-scalers-on", "all"
    )
    assert "Skipped: no session after 2020-12-10" in again.out


def test_simulated_data_are_called_so(volcast: Volcast) -> None:
    said = volcast("ingest", "--source", "simulated:4", "--as-of", "2003-06-30")
    assert said.code == 0
    assert "Simulated data" in said.out


def test_models_are_listed_and_shown_with_their_lineage(volcast: Volcast, sbux_csv: Path) -> None:
    assert volcast("run", *TUTORIAL, "--source", f"files:{sbux_csv.name}").code == 0
    listed = volcast("models", "list")
    assert "tutorial.SBUX" in listed.out
    row = next(line.split() for line in listed.out.splitlines() if line.strip().startswith("tutorial.SBUX v1"))
    assert row[:9] == ["tutorial.SBUX", "v1", "1", "lstm", "1x1000", "53", "to", "2020-12-10", "RMSE"]
    assert "Scores can be compared where the tickers and the test are the same." in listed.out
    assert "tutorial.SBUX of SBUX: v1" in listed.out
    assert "v1" in listed.out
    assert "champion since" in listed.out
    (model,) = json.loads(volcast("models", "list", "--json").out)["models"]
    assert [line["is_champion"] for line in model["versions"]] == [True]
    lineage = json.loads(volcast("models", "show", "--json").out)["models"]["tutorial.SBUX"]["lineage"]
    assert [step["kind"] for step in lineage] == ["forecast", "model", "scaler", "features", "prices"]
    shown = volcast("models", "show", "tutorial.SBUX")
    kinds = ["forecast", "model", "scaler", "features", "prices"]
    places = [shown.out.index(f"{kind} ") for kind in kinds]
    assert places == sorted(places)
    assert "champion since" in shown.out


def test_simulated_prices_never_stand_in_for_real_ones_that_are_asked_for(volcast: Volcast) -> None:
    assert volcast("ingest", "--source", "simulated", "--as-of", "2001-06-29").code == 0
    said = volcast("retrain", "--source", "yahoo")
    assert said.code == 1
    assert "holds no prices. Bring some with: volcast ingest --source yahoo" in said.errors[0]


@pytest.mark.parametrize(
    "command", [["retrain"], ["forecast"], ["models", "list"], ["models", "show", "tutorial.SBUX"], ["status"]]
)
def test_an_empty_store_says_how_to_fill_it(command: list[str], volcast: Volcast) -> None:
    Path("empty").mkdir()
    said = volcast(*command, "--store", "empty")
    assert said.code == 1
    assert "holds no prices. Bring some with: volcast ingest" in said.errors[0]


def test_a_forecast_of_what_is_not_stored_names_it_and_what_is(volcast: Volcast) -> None:
    assert volcast("ingest", "--source", "simulated", "--as-of", "2001-06-29").code == 0
    for request, words in {
        ("--tickers", "NOSUCH"): "holds no prices of NOSUCH. It holds SBUX from 2000-01-03 to 2001-06-29. Ingest",
        ("--as-of", "1999-12-30"): "holds no prices of SBUX up to 1999-12-30. It holds SBUX from 2000-01-03 to",
    }.items():
        said = volcast("forecast", "--source", "simulated", *request)
        assert said.code == 1
        assert words in said.errors[0]


def test_verify_names_a_damaged_file_and_exits_1_and_gc_says_what_would_go(volcast: Volcast, tmp_path: Path) -> None:
    yahoo_frame().to_csv(tmp_path / "SBUX.csv", index=False)
    assert volcast("ingest", "--source", "files:SBUX.csv").code == 0
    whole, garbage = volcast("verify"), volcast("gc", "--dry-run")
    assert (whole.code, whole.out) == (0, "Everything that is stored is as it was written.\n")
    assert (garbage.code, garbage.out) == (0, "Would remove 0 files, 0.0 MB.\n")
    assert volcast("ingest", "--source", "simulated", "--as-of", "2003-06-30").code == 0
    events = next(tmp_path.glob("data/simulated-0/events/**/*.parquet"))
    kept = events.read_bytes()
    events.write_bytes(kept[:-1])
    assert events.name in volcast("verify").out
    events.write_bytes(kept)
    path = next(tmp_path.glob("data/prices/bucket=*/*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    damaged = volcast("verify")
    assert damaged.code == 1
    told = json.loads(volcast("verify", "--json").out)
    assert (told["faults"], path.name in told["findings"][0]["words"]) == (1, True)
    assert path.name in damaged.out
    assert damaged.out.endswith("1 fault found.\n")
    assert volcast("verify", "--store", "elsewhere").errors[0].endswith("Give the right one with: --store")


def test_doctor_says_of_each_thing_that_it_is_in_order_or_what_to_do(volcast: Volcast, sbux_csv: Path) -> None:
    new = volcast("doctor")
    assert (new.code, "OK    store" in new.out, "volcast ingest begins one" in new.out) == (0, True, True), new.out
    assert volcast("ingest", "--source", f"files:{sbux_csv.name}").code == 0
    fine = volcast("doctor", "--json")
    checks = {check["of"]: check for check in json.loads(fine.out)["checks"]}
    assert fine.code == 0, fine.out
    assert {"versions", "device", "store", "clock", "source", "service", "disk"} <= set(checks)
    assert checks["store"]["found"].endswith("prices of 1 ticker to 2020-12-10; it can be written")
    assert checks["source"]["found"].endswith("SBUX.csv answers: 253 rows of SBUX")
    sbux_csv.unlink()
    with time_machine.travel("2019-01-02 12:00", tick=False):
        checks = {check.of: check for check in checks_of("data", lambda _: [])}
    assert "the store was written at 20" in checks["clock"].found
    assert "there is no such file or folder" in checks["source"].found
    assert {name for name, check in checks.items() if check.remedy} == {"clock", "source"}
    ill = volcast("doctor")
    assert (ill.code, "to do source" in ill.out, "Mend it, or name another one" in ill.out) == (1, True, True)
    a_file(Path("data", "prices"))
    damaged = volcast("doctor")
    assert (damaged.code, damaged.errors, "See: volcast verify" in damaged.out) == (1, [], True)


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "prices": a_file,
    "artifacts": a_file,
    "artifacts/model/tutorial.SBUX/00000001.json": a_folder,
    "artifacts/scorecard/tutorial.SBUX/00000001.json": lambda path: path.write_text('{"record": 5, "sha256": "x"}'),
    "prices/_delta_log/00000000000000000000.json": lambda path: path.write_text("{"),
    "events/_delta_log/00000000000000000000.json": lambda path: path.write_text("{"),
}


def test_in_a_damaged_store_every_command_ends_in_one_line_and_verify_names_the_place(
    volcast: Volcast, sbux_csv: Path, tmp_path: Path
) -> None:
    (tmp_path / "dates.csv").write_text("Ticker,Earnings_Date\nSBUX,2020-10-29\n")
    sources = ("--source", f"files:{sbux_csv.name}", "--events", "files:dates.csv")
    assert volcast("run", *TUTORIAL, *sources, "--set", "epochs=20", "--store", "whole").code == 0
    for place, damage in DAMAGES.items():
        shutil.copytree("whole", "damaged")
        damage(tmp_path / "damaged" / place)
        for command in (
            *(["status"], ["quarantine"], ["report"], ["gc", "--dry-run"], ["models", "list"], ["models", "show"]),
            ["models", "rollback", "tutorial.SBUX", "--reason", "for the test"],
            ["models", "show", "x" * 3_000],
        ):
            said = volcast(*command, "--store", "damaged")
            finding = command == ["status"] and not said.errors  # exit 1 as well: the store has no forecast ahead
            assert finding or len(said.errors) == said.code, (place, command)
            assert not said.has_traceback
            assert all("foreseen" not in line and len(line) < 1_100 for line in said.errors), said.errors
        verified = volcast("verify", "--store", "damaged")
        assert verified.code == 1
        assert ("tutorial.SBUX" if "tutorial.SBUX" in place else place.split("/")[0]) in verified.out
        assert verified.errors == []
        shutil.rmtree("damaged")


def test_status_and_quarantine_say_what_is_stored_and_what_is_wrong_without_a_server(
    volcast: Volcast, sbux_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(sbux_csv)
    frame.loc[[60, 70], "Volume"] = 0
    frame.drop(index=50).to_csv(sbux_csv, index=False)
    said = volcast("ingest", "--source", f"files:{sbux_csv.name}")
    assert re.search(r"SBUX +250 +2019-12-11 +2020-12-10 +2 +3 +0 +ok", said.out)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    status = volcast("status")
    assert status.code == 1  # a history that ended years ago, and nothing was forecast
    assert "needs a person" in status.out
    assert re.search(r"STALE_PRICES The prices end on 2020-12-10; .*, or brought nothing newer; then run: ", status.out)
    assert "NO_FORECAST Nothing has been forecast ahead yet. Run: volcast daily" in status.out
    assert "Prices    v0 in data: 250 rows of 1 ticker, sessions 2019-12-11 to 2020-12-10" in status.out
    assert re.search(r"[0-9,]{5,} sessions behind the market's last closed session", status.out)
    assert f"SBUX lacks {frame['Date'][70]} (nothing was traded), {frame['Date'][60]}" in status.out
    facts = volcast("status", "--json")
    told = json.loads(facts.out)
    assert (facts.code, told["needs_person"], told["prices"]["total"]["stored"]) == (1, True, 250)
    assert {"STALE_PRICES", "NO_FORECAST"} <= {finding["code"] for finding in told["health"]["findings"]}
    rows = json.loads(volcast("quarantine", "--json").out)
    assert (rows["total"], {row["rule"] for row in rows["rows"]}) == (2, {"nothing was traded"})
    quarantine = volcast("quarantine", "SBUX", "--limit", 1)
    assert re.search(
        rf"SBUX +{frame['Date'][70]} +nothing was traded +open=.* volume=0 +files:SBUX.csv", quarantine.out
    )
    assert "1 of 2 rows" in quarantine.out
    assert "No row is in quarantine" in volcast("quarantine", "ZZZZ").out


def test_on_a_narrow_terminal_no_word_no_number_and_no_path_is_broken_and_a_pipe_is_as_wide_as_it_has_to_be(
    volcast: Volcast, sbux_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(text: str) -> set[str]:
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if "GB" not in line]
        return {word.strip(",─") for line in lines for word in line.split()} - {""}

    command = ["run", *TUTORIAL, "--source", f"files:{sbux_csv.name}", "--store", "a/rather/long/path/to/the/store"]
    assert volcast(*command, "--set", "epochs=20").code == 0
    looks = [("status",), ("models", "list"), ("models", "show")]
    wide = [volcast(*look, *command[-2:]).out for look in looks]
    volcast.columns(60)
    monkeypatch.setattr(console, "_force_terminal", True)
    for look, whole in zip(looks, wide, strict=True):
        narrow = re.sub(r"\x1b\[[0-9;]*m", "", volcast(*look, *command[-2:]).out)
        assert words(whole) <= words(narrow)
        assert [line for line in narrow.splitlines() if len(line.rstrip()) > 60 and " " in line.strip()] == []
    piped = [*VOLCAST, *looks[1], *command[-2:]]
    told = subprocess.run(piped, env=environment(Path.cwd()), capture_output=True, text=True, check=True)
    assert words(wide[1]) <= words(told.stdout)


def test_a_shrunk_file_is_refused_by_name_and_allowed_on_request(volcast: Volcast, sbux_csv: Path) -> None:
    source = f"files:{sbux_csv.name}"
    assert volcast("ingest", "--source", source).code == 0
    pd.read_csv(sbux_csv).iloc[::2].to_csv(sbux_csv, index=False)
    said = volcast("ingest", "--source", source)
    assert said.code == 1
    assert "SBUX: shrunk: the source gives 127 of the 253 sessions stored" in said.errors[0]
    assert volcast("ingest", "--source", source, "--allow-shrink").code == 0


MISTAKES = [
    *(["run", *options] for options in (["--recipe", "x"], ["--set", "steps=0"], ["--source", "x"], ["--events", "x"])),
    *(["run", *options] for options in (["--as-of", "2100-01-01"], ["--out", "f.pdf"], ["--store", "file/store"])),
    ["run", "--source", "simulated:1?faults=none"],
    ["run", "--source", "files:absent.csv"],
    ["daily", "--recipe", "tutorial"],
    [
        "backtest",
        "--train-through",
        "2020-01-03",
        "--test-start",
        "2020-01-02",
        "--test-end",
        "2020-02-03",
        "--out",
        "f.csv",
    ],
    *([command] for command in ("status", "verify", "gc", "quarantine", "report", "retrain", "forecast", "monitor")),
    *(["models", *words] for words in (["list"], ["show", "volume"], ["rollback", "volume", "--reason", "x"])),
    *([command, "--source", "simulated:7"] for command in ("status", "quarantine", "retrain")),
]
REFUSE = """
import json, sys
from volcast.flows.cli import main

HEAVY = ("torch", "scipy", "matplotlib", "prefect")
for words in json.loads(sys.argv[1]):
    sys.argv = ["volcast", *words]
    try:
        main()
    except SystemExit as end:
        print(words, end.code in (1, 2), [name for name in HEAVY if name in sys.modules])
"""


def test_a_mistake_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", REFUSE, json.dumps(MISTAKES)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    ends = [line for line in done.stdout.splitlines() if line.startswith("[")]  # some say their source before
    assert ends == [f"{words} True []" for words in MISTAKES]
    assert done.stderr.count("Error: ") == len(MISTAKES)


PROCESS = """
import atexit, sys, threading, time
from volcast.__main__ import process

class Kept:
    def __del__(self):
        print("finalized")

sys.kept = Kept()
atexit.register(print, "exit function")
threading.Thread(target=lambda: (threading.main_thread().join(), print("thread"))).start()
process()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [(["--help"], 0, "retrain"), (["status", "--store", "/not/there"], 1, ""), (["status", "--no-such"], 2, "")],
)
def test_a_process_says_all_and_ends_with_its_code_without_the_finalization(
    arguments: list[str], code: int, out: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROCESS, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, out in done.stdout) == (code, True), done.stderr
    assert done.stdout.endswith("thread\nexit function\n")


HURT = """
import os, signal, sys

class Hurt:
    @staticmethod
    def find_spec(name, *_):
        if name == {imported!r}:
            {harm}

sys.meta_path.insert(0, Hurt)
"""
CTRL_C, NO_MEMORY = "os.kill(os.getpid(), signal.SIGINT)", "raise MemoryError"


@pytest.mark.parametrize(
    ("imported", "harm", "code", "words"),
    [
        ("volcast.models.text", CTRL_C, -2, ""),
        ("volcast.tasks.preflight", CTRL_C, 130, "Interrupted."),
        ("volcast.models.text", NO_MEMORY, 1, "not enough memory"),
        ("volcast.tasks.preflight", NO_MEMORY, 1, "not enough memory"),
    ],
)
def test_what_goes_wrong_in_an_import_shows_no_traceback(
    imported: str, harm: str, code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HURT.format(imported=imported, harm=harm))
    interrupted = environment(tmp_path)
    interrupted["PYTHONPATH"] = os.pathsep.join([str(tmp_path), interrupted.get("PYTHONPATH", "")])
    done = subprocess.run([*VOLCAST, "status"], cwd=tmp_path, env=interrupted, capture_output=True, text=True)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_a_shell_completes_commands_options_and_choices() -> None:
    lines = ["fore", "models ", "forecast --poi", "backtest --refit "]
    script = [app.generate_completion(prog_name="volcast", shell="bash")]
    for line in lines:
        words = f"volcast {line}".split(" ")
        script += [f"COMP_WORDS=({' '.join(word or repr('') for word in words)}); COMP_CWORD={len(words) - 1}"]
        script += ['_volcast; echo "${COMPREPLY[@]}"']
    done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=True)
    said = dict(zip(lines, done.stdout.splitlines(), strict=True))
    assert said["fore"] == "forecast"
    assert set(said["models "].split()) == {"list", "compare", "show", "promote", "rollback"}
    assert said["forecast --poi"] == "--point"
    assert said["backtest --refit "] == "never yearly quarterly"
