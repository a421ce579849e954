"""What tests share: one real Prefect server for the session, and a year of prices in a file."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from prefect.settings import PREFECT_API_URL

from flows.server import Server, prefect_server
from models.sessions import sessions_between

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of our own, as `volcast run` starts it; flows and commands of this process use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLCAST_HOME", str(tmp_path_factory.mktemp("home")))
        assert not PREFECT_API_URL.value(), "unset PREFECT_API_URL: the tests start a server of their own"
        with prefect_server() as server:
            yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that ask for it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


def yahoo_frame(sessions: int = 253, *, last: date = date(2020, 12, 10), seed: int = 1) -> pd.DataFrame:
    """Rows under Yahoo's headings, of made-up prices with one dividend a quarter."""
    draws = np.random.default_rng(seed)
    dates = sessions_between(date(2015, 1, 2), last)[-sessions:]
    close = 80 * np.exp(np.cumsum(draws.normal(0, 0.015, sessions)))
    open_ = close * np.exp(draws.normal(0, 0.005, sessions))
    factor = np.ones(sessions)
    for ex_session in range(40, sessions, 63):
        factor[:ex_session] *= 1 - 0.45 / close[ex_session - 1]
    volume = np.round(8e6 * np.exp(draws.normal(0, 0.4, sessions) + 12 * np.abs(np.log(close / open_))))
    return pd.DataFrame(
        {
            "Date": dates.strftime("%Y-%m-%d"),
            "Open": open_.round(6),
            "High": (np.maximum(open_, close) * 1.01).round(6),
            "Low": (np.minimum(open_, close) * 0.99).round(6),
            "Close": close.round(6),
            "Adj Close": (close * factor).round(6),
            "Volume": volume.astype(np.int64),
        }
    )


@pytest.fixture
def sbux_csv(tmp_path: Path) -> Path:
    """A CSV of 253 sessions of SBUX, as long as the article's."""
    path = tmp_path / "SBUX.csv"
    yahoo_frame().to_csv(path, index=False)
    return path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Callable[[], str]]]:
    """Start an S3 server and point the environment at it; gives a function that lists the bucket, as XML."""
    servers: list[subprocess.Popen[str]] = []

    def start(behaviour: str) -> Callable[[], str]:
        command = [sys.executable, str(Path(__file__).with_name("fake_s3.py")), behaviour]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        return lambda: urlopen(f"{endpoint}/bucket?list-type=2").read().decode()

    yield start
    for server in servers:
        with server:
            server.kill()
