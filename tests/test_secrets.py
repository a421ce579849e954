"""Credentials in a URL are planted, and then looked for in every file, log, artifact, answer of the API, and error."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from programs import Volcast
from rows import MADE_BY, quarantined, yahoo_frame

from volcast.flows.champion import rollback
from volcast.flows.ingest import ingest
from volcast.flows.verify import verify
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.locations import carries_credentials, shown
from volcast.storage.records import Provenance
from volcast.storage.store import open_store
from volcast.tasks.preflight import LAST_INGEST
from volcast.tasks.settings import DataSettings
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.source import SourceMissing

PASSWORD, SIGNATURE, TOKEN = "hunter2pass", "c2lnbmF0dXJl", "tok3nvalue"
PLANTED = (PASSWORD, SIGNATURE, TOKEN)
QUERY = f"sig={SIGNATURE}&access_token={TOKEN}"


class Files(BaseHTTPRequestHandler):
    """Gives the prices to whoever has the password and the signature."""

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""

    def do_GET(self) -> None:
        known = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        is_known = self.headers.get("Authorization") == f"Basic {known}" and QUERY in self.path
        body = yahoo_frame().replace({"Volume": {yahoo_frame()["Volume"].iloc[7]: 0}}).to_csv(index=False).encode()
        self.send_response(200 if is_known and "SBUX" in self.path else 404)
        self.end_headers()
        self.wfile.write(body if is_known else b"")


@pytest.fixture
def host() -> Iterator[str]:
    """Host and port of a server of files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def secrets_in(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def secrets_below(folder: Path) -> list[tuple[Path, str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [(path, secret) for path in files for secret in PLANTED if secret.encode() in path.read_bytes()]


def all_that_prefect_answers() -> str:
    """Runs, logs, artifacts and block documents, as the API gives them to whoever asks."""
    with get_client(sync_client=True) as client:
        pages = [
            client._client.post(f"/{what}/filter", json={"offset": offset})
            for what in ("flow_runs", "task_runs", "logs", "artifacts", "block_documents", "deployments", "events")
            for offset in (0, 200, 400)
        ]
    return "\n".join(page.text for page in pages)


@pytest.mark.usefixtures("prefect_api")
def test_a_url_in_the_environment_is_used_and_its_credentials_are_nowhere(
    volcast: Volcast, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICES", f"http://user:{PASSWORD}@{host}/SBUX.csv?{QUERY}")
    told = [
        volcast("ingest", "--source", "files:env:PRICES", "--as-of", "2020-12-10"),
        volcast("ingest", "--as-of", "2020-12-10"),  # goes on with the source that the store knows
        volcast("quarantine"),
        volcast("report"),
        volcast("ingest", "--source", "files:env:PRICES", "--events", "files:env:PRICES"),
        volcast("verify"),
    ]
    assert [said.code for said in told] == [0, 0, 0, 0, 1, 0]
    assert "files:env:PRICES" in told[1].out
    assert "files:env:PRICES" in told[2].out
    monkeypatch.setenv("PRICES", f"http://user:{PASSWORD}@{host}/gone.csv?{QUERY}")
    told.append(volcast("ingest"))
    monkeypatch.setenv("PRICES", f"http://user:{PASSWORD}/x@{host}/SBUX.csv?{QUERY}")
    told.append(volcast("ingest"))
    monkeypatch.setenv("PRICES", f"s3://key:{PASSWORD}@bucket/SBUX.csv?token={TOKEN}")
    told.append(volcast("ingest"))
    monkeypatch.delenv("PRICES")
    told.append(volcast("ingest"))
    assert [len(said.errors) for said in told[-4:]] == [1, 1, 1, 1]
    assert [secrets_in("".join([said.out, *said.errors])) for said in told] == [[]] * len(told)
    assert secrets_below(tmp_path) == []
    answers = all_that_prefect_answers()
    assert "files:env:PRICES" in answers
    assert secrets_in(answers) == []


URLS = [
    f"http://user:{PASSWORD}@127.0.0.1:9/SBUX.csv",
    f"http://user:{PASSWORD}/x@127.0.0.1:9/SBUX.csv",
    f"http://127.0.0.1:9/SBUX.csv?period=1&sig={SIGNATURE}",
    f"https://127.0.0.1:9/SBUX.csv?X-Amz-Signature={SIGNATURE}",
    f"http://127.0.0.1:9/SBUX.csv?k={TOKEN}{TOKEN}{TOKEN}",
    f"s3://KEY:{PASSWORD}@bucket/prices",
]


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("url", URLS)
def test_credentials_on_the_command_line_are_refused_before_anything_is_kept(
    volcast: Volcast, url: str, tmp_path: Path
) -> None:
    told = [
        volcast("ingest", "--source", f"files:{url}"),
        volcast("ingest", "--events", f"files:{url}"),
        volcast("ingest", "--sorce", f"files:{url}"),
        volcast("ingest", "--source", url),
        volcast("deploy", "--source", f"files:{url}"),
        volcast("backtest", "--source", f"files:{url}", "--recipe", url),
        *(
            volcast(*command, "--store", url)
            for command in (("ingest",), ("verify",), ("gc",), ("status",), ("report",))
        ),
    ]
    for said in told:
        assert said.code != 0
        assert len(said.errors) == 1
        assert not said.has_traceback
        assert secrets_in("".join([said.out, *said.errors])) == []
    assert "files:env:NAME" in told[0].errors[0]
    assert secrets_below(tmp_path) == []
    assert secrets_in(all_that_prefect_answers()) == []


@pytest.mark.parametrize("url", URLS)
def test_settings_hold_no_credentials_so_that_no_message_about_them_does(url: str) -> None:
    data = DataSettings.model_validate({"source": f"files:{url}", "events": f"files:{url}", "store": url})
    assert secrets_in(repr(data)) == []
    assert all(carries_credentials(text or "") for text in (data.source, data.events, data.store))  # and is refused


@pytest.mark.parametrize("url", [url for url in URLS if "?k=" not in url and "/x@" not in url])
@pytest.mark.parametrize(("flow", "name"), [(ingest, "data"), (verify, "store"), (rollback, "store")])
def test_prefect_s_server_refuses_a_run_whose_parameters_carry_credentials(flow: Any, name: str, url: str) -> None:
    schema = parameter_schema(flow).model_dump_for_openapi()
    others = {"model": "m", "reason": "r"} if flow is rollback else {}
    bad: Any = {"source": f"files:{url}"} if name == "data" else url
    good: Any = {"source": "files:http://h/x.csv?s=sbux.us&i=d"} if name == "data" else "s3://bucket/x"
    validate({**others, name: good}, schema, raise_on_error=True)
    with pytest.raises(Exception, match=r"does not match|not valid"):
        validate({**others, name: bad}, schema, raise_on_error=True)


@pytest.mark.parametrize(
    "plain",
    [
        "./data",
        "files:/home/a@b/SBUX.csv?key=1",
        "https://stooq.com/q/d/l/?s=sbux.us&i=d&d1=20200101",
        "https://host/pkg@1.0/SBUX.csv",
        "s3://bucket/a/b c",
        "files:env:PRICES",
    ],
)
def test_a_path_or_url_without_credentials_is_left_as_it_is(plain: str) -> None:
    assert not carries_credentials(plain)
    if "://" in plain:
        assert shown(plain) == plain


def test_what_earlier_releases_kept_is_masked_where_it_is_shown(volcast: Volcast, tmp_path: Path) -> None:
    kept = f"files:http://user:{PASSWORD}@h/SBUX.csv?{QUERY}"
    store = open_store(str(tmp_path / "data"), writable=True)
    told_then: dict[str, Any] = MADE_BY.model_dump() | {"source": kept}
    provenance = Provenance.model_construct(**told_then)
    facts = {"source": kept, "events": None, "events_known_as": "none"}
    ArtifactStore(store).put(Draft(kind=LAST_INGEST, name="prices", files={}, facts=facts, provenance=provenance))
    QuarantineTable(store).add(quarantined(source=kept))
    assert secrets_below(tmp_path)
    newest = ArtifactStore(store).get(LAST_INGEST, "prices")
    assert secrets_in(repr(newest.provenance)) == []
    assert str(newest.provenance.source).startswith("files:http://…@h/SBUX.csv?sig=…")
    told = [volcast("quarantine", "--source", "yahoo"), volcast("quarantine"), volcast("verify")]
    assert [secrets_in(said.out + "".join(said.errors)) for said in told] == [[], [], []]


def test_httpx_logs_no_credentials(caplog: pytest.LogCaptureFixture, host: str) -> None:
    with caplog.at_level("INFO", logger="httpx"), pytest.raises(SourceMissing, match="HTTP 404"):
        FilesSource(f"http://{host}/SBUX.csv?{QUERY}").tickers()
    assert "HTTP Request: GET" in caplog.text
    assert secrets_in(caplog.text) == []
