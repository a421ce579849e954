"""Who is let in to volcast's own Prefect server, and by what its clients know it.

Prefect's server asks for the password. The guard before it refuses a request for a foreign name (DNS rebinding) or of a
foreign page, logs a browser in, and proves to a client, before that sends the password, that it is the server which
`server.json` names: whoever took its port since does not know the key.

Prefect's UI keeps the password in the browser's storage for this address and port. A cookie would not do: browsers send
it to every port of the machine, also to a server of another user.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Template
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

USER = "volcast"
LINK_SECONDS = 600  # in which a link can be used, once
LONGEST_BODY = 4096  # bytes of what the login page sends
VARIABLE, LISTENER = "VOLCAST_SERVER_ACCESS", "VOLCAST_SERVER_LISTENER"  # in the environment of the server's process
PAGE = Path(__file__).with_name("login.html")
METRICS = "metrics.prom"  # in the folder of `volcast up`: what flows/metrics.py writes
HIDDEN = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True)
class Access:
    """What a server of volcast's own and its clients share."""

    url: str  # http://127.0.0.1:4200, as the clients of this machine have it
    auth: str = field(default_factory=lambda: f"{USER}:{secrets.token_urlsafe(32)}", repr=False)  # user:password
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)  # of proofs and links
    names: tuple[str, ...] = ()  # by which others may ask for the server, beside this machine's own
    is_local: bool = True  # only this machine reaches it

    def proof(self, nonce: str) -> str:
        """What only who knows the key can answer; it holds for this address alone."""
        return self._sign("proof", self.url, nonce)

    def link(self) -> str:
        """A page that logs a browser in, once; what follows the # is never sent in a request's line."""
        ticket = f"{int(time.time()) + LINK_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{self.url}/login#{ticket}.{self._sign('link', ticket)}"

    def is_link(self, given: str) -> bool:
        """Whether it is what follows the # of a link, and not too old."""
        ticket, _, signature = given.rpartition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign("link", ticket).encode())
        return is_ours and int(ticket.partition(".")[0]) >= time.time()

    @property
    def password(self) -> str:
        """As HTTP's Basic authentication and the storage of Prefect's UI have it."""
        return base64.b64encode(self.auth.encode()).decode()

    @property
    def cookie(self) -> str:
        """The name of a cookie that says that this browser has logged in to this very server; it opens nothing."""
        return f"volcast-{self._sign('cookie')[:16]}"

    def _sign(self, *words: str) -> str:
        return hmac.new(self.key.encode(), "\n".join(words).encode(), hashlib.sha256).hexdigest()


class Guard:
    """An application of ASGI, Prefect's server, behind its door."""

    def __init__(self, app: ASGIApp, access: Access, folder: Path) -> None:
        self._app, self._access, self._used = app, access, dict[str, float]()
        self._metrics = folder / METRICS
        self._page = Template(PAGE.read_text(), autoescape=True)
        self._names = {"localhost", *access.names} | (set() if access.is_local else {socket.gethostname().lower()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, answer for itself, or pass on to the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(Headers(scope=scope)):
            await _refuse(refusal, scope, receive, send)
        elif scope["type"] == "http" and (answer := await self._answer(Request(scope, receive))):
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, _unframed(send))

    def _refusal(self, headers: Headers) -> str:
        hosts, origin = headers.getlist("host"), headers.get("origin")
        if len(hosts) != 1 or not self._is_known(_name_in(f"//{hosts[0]}")):
            return "This server does not answer for that name. To let it: volcast up --known-as NAME"
        if origin is not None:
            is_foreign = origin.partition("://")[2] != hosts[0] and _name_in(origin) not in self._access.names
        else:  # an image, a script: of these a browser tells only so that a page of another site wants them
            is_from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
            is_foreign = is_from_elsewhere and headers.get("sec-fetch-mode") != "navigate"
        return "A page of another site may not use this server." if is_foreign else ""

    def _is_known(self, name: str) -> bool:
        """Whether one may ask for the server so. An address cannot be rebound: it is where the request went to."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback or not self._access.is_local

    async def _answer(self, request: Request) -> Response | None:
        path, has_entered = request.scope["path"], self._access.cookie in request.cookies
        if path == "/proof":
            return PlainTextResponse(self._access.proof(request.query_params.get("nonce", "")), headers=HIDDEN)
        if path == "/metrics":
            return self._show_metrics(request)
        if path == "/login":
            return await self._enter(request) if request.method == "POST" else self._show_page(request)
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not is_page or path.startswith("/api") or (has_entered and path != "/v2/login"):
            return None
        wanted = "/" if path == "/v2/login" else path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303, headers=HIDDEN)

    def _show_metrics(self, request: Request) -> Response:
        """The file as it is: a scrape costs nothing else."""
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Basic {self._access.password}".encode()):
            asks = {"WWW-Authenticate": 'Basic realm="volcast"'}
            return PlainTextResponse("The metrics ask for user and password.\n", 401, headers=HIDDEN | asks)
        try:
            return Response(self._metrics.read_bytes(), media_type=CONTENT_TYPE_LATEST, headers=HIDDEN)
        except FileNotFoundError:
            return PlainTextResponse("There are none yet: volcast up writes them.\n", 404, headers=HIDDEN)

    def _show_page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        policy += "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
        page = self._page.render(nonce=nonce, host=request.headers["host"])
        return HTMLResponse(page, headers=HIDDEN | {"Content-Security-Policy": policy})

    async def _enter(self, request: Request) -> Response:
        """The password, for who brings a link that was not used before, or the password itself."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_BODY:
                return PlainTextResponse("", status_code=413)
        given: Any = {}
        with suppress(ValueError):
            given = json.loads(body)
        if not (isinstance(given, dict) and self._lets_in(str(given.get("link", "")), str(given.get("password", "")))):
            return PlainTextResponse("", status_code=403)
        answer = PlainTextResponse(self._access.password, headers=HIDDEN)
        answer.set_cookie(self._access.cookie, "in", httponly=True, samesite="lax")
        return answer

    def _lets_in(self, link: str, password: str) -> bool:
        if hmac.compare_digest(password.encode(), self._access.password.encode()):
            return True
        now = time.time()
        self._used = {used: until for used, until in self._used.items() if until > now}
        if link in self._used or not self._access.is_link(link):
            return False
        self._used[link] = now + LINK_SECONDS
        return True


def _name_in(url: str) -> str:
    """The name or address of a URL, in small letters; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
    else:
        await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)


def _unframed(send: Send) -> Send:
    """Answers that no page can show within itself."""

    async def send_unframed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = "frame-ancestors 'none'"
        await send(message)

    return send_unframed


def serve() -> None:
    """Run Prefect's server behind the guard, on the socket that the parent opened."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from volcast.flows.prefect_processes import FOLDER

    access, folder = Access(**json.loads(os.environ.pop(VARIABLE))), Path(os.environ[FOLDER])
    settings = get_current_settings().server
    config = uvicorn.Config(
        Guard(create_app(final=True), access, folder),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[socket.socket(fileno=int(os.environ.pop(LISTENER)))])
    if not server.started:
        raise SystemExit(3)  # as uvicorn's own command ends; the log says why
