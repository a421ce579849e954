"""Attacks on a server of volcast's own, from the same machine: it lets nobody in who was not given its password."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from benchmarks.programs import CODE
from volcast.flows import server_access
from volcast.flows.prefect_processes import own_process
from volcast.flows.server import Server, announce, own_server, prefect_server, present_server, server_that_is_up
from volcast.flows.server_access import METRICS, Access, Guard
from volcast.flows.server_options import ServerError

NOBODY = 65534
FOREIGN = "https://evil.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of a folder that every user of the machine can reach."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        Path(name).chmod(0o755)
        patch.setenv("VOLCAST_HOME", str(Path(name) / "home"))
        with temporary_settings(restore_defaults={PREFECT_API_URL}), own_server() as started:
            announce(started)
            yield started


def access_of(server: Server) -> Access:
    assert server.access is not None
    return server.access


@pytest.mark.service
def test_no_path_of_the_api_answers_without_the_password(server: Server) -> None:
    with httpx.Client(base_url=access_of(server).url, trust_env=False) as stranger:
        paths = stranger.get("/openapi.json").json()["paths"]
        assert len(paths) > 100
        assert stranger.get("/api/csrf-token?client=me").status_code == 401
        guessed = {"Prefect-Csrf-Client": "me", "Prefect-Csrf-Token": "guessed"}
        open_to_all = {
            path
            for path, methods in paths.items()
            for method in methods
            if stranger.request(method, f"/api{path}", headers=guessed).status_code not in (401, 403)
        }
        assert open_to_all <= {"/health", "/ready"}
        for guess in ("volcast:", "volcast:volcast", ":", access_of(server).auth[:-1]):
            user, _, password = guess.partition(":")
            assert stranger.get("/api/version", auth=(user, password)).status_code == 401


AS_ANOTHER_USER = """
import json, os, sys, urllib.request
from pathlib import Path

def tried(read):
    try:
        return str(read())
    except OSError as error:
        return f"{type(error).__name__} {getattr(error, 'code', '')}".strip()

home, url, pid = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
run = urllib.request.Request(
    f"{url}/api/deployments/00000000-0000-0000-0000-000000000000/create_flow_run",
    data=json.dumps({"job_variables": {"command": "touch /tmp/pwned"}}).encode(),
    headers={"Content-Type": "application/json"},
)
print(json.dumps({
    "user": os.getuid(),
    "list": tried(lambda: os.listdir(home)),
    "password": tried((home / "server.json").read_text),
    "database": tried((home / "prefect.db").read_bytes),
    "log": tried((home / "server.log").read_text),
    "environment": tried(Path("/proc", pid, "environ").read_text),
    "command": tried(Path("/proc", pid, "cmdline").read_text),
    "run": tried(lambda: urllib.request.urlopen(run)),
}))
"""


@pytest.mark.service
@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
def test_another_user_of_the_machine_gets_neither_the_password_nor_a_run(server: Server) -> None:
    assert server.process is not None
    home, pid = os.environ["VOLCAST_HOME"], str(server.process.pid)
    command = ["/usr/bin/env", "python3", "-I", "-c", AS_ANOTHER_USER, home, access_of(server).url, pid]
    done = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["user"] == NOBODY
    secret = (access_of(server).auth.partition(":")[2], access_of(server).key)
    assert not any(each in done.stdout for each in secret)
    refused = {name: found[name] for name in ("list", "password", "database", "log", "environment", "run")}
    assert refused == dict.fromkeys(refused, "PermissionError") | {"run": "HTTPError 403"}
    assert "prefect_processes" in found["command"]


@pytest.mark.service
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),  # a name that was rebound to this machine
        ("evil.example:4200", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.1.5", 403),
        ("0.0.0.0", 403),
        ("", 403),
        ("[::1", 403),
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),  # a tunnel's
        ("localhost:4200", 200),
        ("LOCALHOST", 200),
        ("[::1]:4200", 200),
    ],
)
def test_a_request_for_a_foreign_name_is_refused_whatever_it_brings(server: Server, host: str, status: int) -> None:
    user, _, password = access_of(server).auth.partition(":")
    for path in ("/api/version", "/ui-settings", "/login", "/proof"):
        answer = httpx.get(
            f"{access_of(server).url}{path}", headers={"Host": host}, auth=(user, password), trust_env=False
        )
        assert answer.status_code == status


@pytest.mark.service
@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://127.0.0.1:1", "http://localhost", "http://[", ""])
def test_a_page_of_another_origin_is_refused_even_with_the_password_and_before_it_asks(
    server: Server, origin: str
) -> None:
    access = access_of(server)
    user, _, password = access.auth.partition(":")
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with httpx.Client(base_url=access.url, headers={"Origin": origin}, trust_env=False) as page:
        preflight = page.options("/api/flow_runs/filter", headers=asks)
        posted = page.post("/api/flow_runs/filter", json={}, auth=(user, password))
        logged_in = page.post("/login", json={"password": access.password})
    for answer in (preflight, posted, logged_in):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith(("access-control", "set-cookie"))]
        assert access.password not in answer.text


@pytest.mark.service
def test_an_event_stream_opens_for_no_foreign_page_and_for_nobody_without_the_password(server: Server) -> None:
    url = f"{access_of(server).url.replace('http', 'ws', 1)}/api/events/out"

    async def first_answer(token: str, **more: Any) -> str:
        async with connect(url, subprotocols=["prefect"], proxy=None, **more) as stream:  # type: ignore[list-item]
            await stream.send(json.dumps({"type": "auth", "token": token}))
            try:
                return json.loads(await stream.recv())["type"]
            except ConnectionClosedError as error:
                return type(error).__name__

    assert asyncio.run(first_answer(access_of(server).auth)) == "auth_success"
    assert asyncio.run(first_answer("volcast:guess")) == "ConnectionClosedError"
    with pytest.raises(InvalidStatus, match="403"):
        asyncio.run(first_answer(access_of(server).auth, origin=FOREIGN))


@pytest.mark.service
def test_the_ui_is_shown_in_no_frame_and_an_image_of_a_foreign_page_gets_nothing(server: Server) -> None:
    access = access_of(server)
    known = {"Accept": "text/html", "Cookie": f"{access.cookie}=in"}
    with httpx.Client(base_url=access.url, trust_env=False) as browser:
        page = browser.get("/v2/", headers=known | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"})
        assert (page.status_code, page.headers["content-security-policy"]) == (200, "frame-ancestors 'none'")
        for site in ("cross-site", "same-site"):  # the second is another port of this machine
            asked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
            assert browser.get("/ui-settings", headers=asked).status_code == 403
        own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": access.url}
        assert browser.get("/ui-settings", headers=own).json()["csrf_enabled"] is True
        assert "frame-ancestors 'none'" in browser.get("/login").headers["content-security-policy"]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that says of every request that it came through."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"through"})


class Visitor:
    """A browser before a guard; it keeps its cookies."""

    def __init__(self, access: Access, folder: Path = Path("/not/there")) -> None:
        self._url, self._guard, self._cookies = access.url, Guard(bare, access, folder), httpx.Cookies()

    def get(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("GET", path, **more))

    def post(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", path, **more))

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._guard)
        async with httpx.AsyncClient(transport=transport, base_url=self._url, cookies=self._cookies) as client:
            answer = await client.request(method, path, **more)
            self._cookies = client.cookies
            return answer


def test_a_link_logs_in_once_and_only_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("http://127.0.0.1:4200")
    browser, link = Visitor(access), access.link().partition("#")[2]
    asked = browser.get("/v2/runs?state=failed", headers={"Accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fv2%2Fruns%3Fstate%3Dfailed")
    assert browser.get("/api/flow_runs").text == "through"  # Prefect asks for the password there
    assert "volcast on 127.0.0.1:4200" in browser.get("/login").text

    entered = browser.post("/login", json={"link": link})
    assert (entered.status_code, entered.text) == (200, access.password)
    assert browser.get("/v2/runs", headers={"Accept": "text/html"}).text == "through"
    assert browser.get("/v2/login", headers={"Accept": "text/html"}).headers["location"] == "/login?next=%2F"
    assert browser.post("/login", json={"link": link}).status_code == 403

    late = access.link().partition("#")[2]
    monkeypatch.setattr(server_access.time, "time", lambda: float(late.partition(".")[0]) + 1)
    assert browser.post("/login", json={"link": late}).status_code == 403


@pytest.mark.parametrize(
    "given",
    [
        {"link": Access("http://127.0.0.1:4200").link().partition("#")[2]},  # of another server
        {"link": "9999999999.x.0000"},
        {"link": "é"},
        {"link": ""},
        {"password": ""},
        {"password": "dm9sY2FzdDpndWVzcw=="},
        {"link": ["a"], "password": {"b": 1}},
        ["link"],
        "link",
        {"link": "a" * 5000},
    ],
)
def test_what_is_neither_link_nor_password_logs_nobody_in(given: Any) -> None:
    answer = Visitor(Access("http://127.0.0.1:4200")).post("/login", json=given)
    assert answer.status_code in (403, 413)
    assert not answer.text
    assert not answer.cookies


def test_a_link_holds_nothing_that_proves_a_server_and_a_proof_nothing_that_logs_in() -> None:
    access = Access("http://127.0.0.1:4200")
    ticket, _, signature = access.link().partition("#")[2].rpartition(".")
    browser = Visitor(access)
    assert browser.get("/proof", params={"nonce": ticket}).text != signature
    assert browser.get("/proof", params={"nonce": "n"}).text == access.proof("n") != access.proof("m")
    assert replace(access, url="http://127.0.0.1:4201").proof("n") != access.proof("n")


def test_a_server_that_others_reach_answers_for_addresses_its_own_names_and_those_it_was_given() -> None:
    access = Access("http://127.0.0.1:4200", names=("volcast.example",), is_local=False)
    browser = Visitor(access)
    for host, status in {"10.0.0.7:4200": 200, "volcast.example": 200, "evil.example": 403}.items():
        assert browser.get("/api", headers={"Host": host}).status_code == status
    behind_proxy = {"Host": "10.0.0.7:4200", "Origin": "https://volcast.example"}
    assert browser.get("/api", headers=behind_proxy).status_code == 200
    assert browser.get("/api", headers=behind_proxy | {"Origin": FOREIGN}).status_code == 403


def test_the_metrics_are_sent_as_they_lie_in_the_folder_to_who_knows_the_password(tmp_path: Path) -> None:
    access = Access("http://127.0.0.1:4200")
    visitor, known = Visitor(access, tmp_path), httpx.BasicAuth(*access.auth.split(":"))
    assert visitor.get("/metrics", auth=known).status_code == 404  # before they are written
    (tmp_path / METRICS).write_text("volcast_tickers 3.0\n")
    sent = visitor.get("/metrics", auth=known)
    assert (sent.text, sent.headers["content-type"].split(";")[0]) == ("volcast_tickers 3.0\n", "text/plain")
    for stranger in (None, httpx.BasicAuth("volcast", "guessed"), httpx.BasicAuth("é", "é")):
        refused = visitor.get("/metrics", auth=stranger, headers={"Accept": "text/html"})
        assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True)
        assert "tickers" not in refused.text
    assert visitor.get("/metrics", auth=known, headers={"Origin": FOREIGN}).status_code == 403


def test_what_is_secret_of_an_access_is_not_shown_with_it() -> None:
    access = Access("http://127.0.0.1:4200")
    assert access.auth.partition(":")[2] not in repr(access)
    assert access.key not in repr(Server(f"{access.url}/api", auth=access.auth, access=access))
    assert Access(access.url).auth != access.auth


@contextmanager
def impostor() -> Iterator[tuple[str, list[str]]]:
    """What another user left on the port: it says yes to everything; gives its address and what it was sent."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(f"{self.requestline}\n{self.headers}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}", sent
        listener.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of the server's, and no server that is configured."""
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield tmp_path


def left_in(home: Path, url: str) -> Path:
    access = Access(url)
    announce(Server(f"{url}/api", auth=access.auth, access=access))
    return home / "server.json"


def test_what_has_taken_the_port_is_sent_no_password_and_named(home: Path) -> None:
    with impostor() as (url, sent):
        left = left_in(home, url)
        with pytest.raises(ServerError, match=rf"What answers at {url} is not the server .* and remove {left}"):
            server_that_is_up()
        with pytest.raises(ServerError, match="sent no password"), prefect_server():
            pass
        with present_server() as server:
            assert server is None
    assert len(sent) == 3
    assert all(re.match(r"GET /proof\?nonce=\S{20,} HTTP", each) for each in sent)
    assert not any("authorization" in each.lower() for each in sent)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o606])
def test_the_address_of_a_server_that_others_could_read_or_write_is_not_believed(home: Path, mode: int) -> None:
    with impostor() as (url, sent):
        left = left_in(home, url)
        assert left.stat().st_mode & 0o777 == 0o600
        left.chmod(mode)
        with pytest.raises(ServerError, match=rf"{left} is not trusted .* \(mode 0{mode:o}"):
            server_that_is_up()
    assert sent == []


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a file to another user takes root")
@pytest.mark.parametrize("owned", ["server.json", "."])
def test_what_another_user_owns_is_not_believed(home: Path, owned: str) -> None:
    with impostor() as (url, sent):
        left_in(home, url)
        os.chown(home / owned, NOBODY, NOBODY)
        with pytest.raises(ServerError, match=rf"it belongs to the user {NOBODY}\. .* VOLCAST_HOME="):
            server_that_is_up()
    assert sent == []


def test_a_link_in_place_of_the_servers_file_and_a_folder_that_others_may_write_to_are_refused(home: Path) -> None:
    left = left_in(home, "http://127.0.0.1:9")
    left.rename(home / "elsewhere")
    left.symlink_to(home / "elsewhere")
    with pytest.raises(ServerError, match=rf"{left} is not believed: Too many levels of symbolic links"):
        server_that_is_up()
    left.unlink()
    home.chmod(0o777)
    with pytest.raises(ServerError, match=rf"{home} is not trusted .* \(mode 0777"), own_server():
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"api_url": "http://x/api", "auth": "u:p", "process": {}}'])
def test_an_address_of_an_earlier_release_or_half_of_one_is_no_server(home: Path, text: str) -> None:
    (home / "server.json").write_text(text)
    (home / "server.json").chmod(0o600)
    assert server_that_is_up() is None


@pytest.mark.service
def test_each_server_has_a_password_of_its_own_which_is_in_no_log_and_no_command_line(server: Server) -> None:
    assert server.process is not None
    home, access = Path(os.environ["VOLCAST_HOME"]), access_of(server)
    kept = json.loads((home / "server.json").read_text())
    assert kept == {"access": {**asdict(access), "names": []}, "process": asdict(own_process())}
    assert len(access.auth) > 40
    shown = Path("/proc", str(server.process.pid), "cmdline").read_bytes() + (home / "server.log").read_bytes()
    assert access.auth.partition(":")[2].encode() not in shown
    assert access.key.encode() not in shown


@pytest.mark.service
def test_volcast_ui_prints_a_link_that_logs_in_and_says_when_nothing_is_up(server: Server, tmp_path: Path) -> None:
    def said(home: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        command = [sys.executable, "-m", "volcast", "ui"]
        return subprocess.run(
            command, cwd=CODE, env=environment | {"VOLCAST_HOME": home}, capture_output=True, text=True, check=False
        )

    shown = said(os.environ["VOLCAST_HOME"])
    assert shown.returncode == 0, shown.stderr
    link = re.match(
        rf"{access_of(server).url}/login#(\S+)\nThe link logs a browser in, once, in the next 10", shown.stdout
    )
    assert link is not None
    answer = httpx.post(f"{access_of(server).url}/login", json={"link": link[1]}, trust_env=False)
    assert answer.text == access_of(server).password
    nothing = said(str(tmp_path))
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "No Prefect server is up. Start one with: volcast up" in nothing.stderr
