"""How volcast's own Prefect server is started: where it listens, its database, who may use it."""

import asyncio
import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field

from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = {"0.0.0.0": LOOPBACK, "::": "[::1]"}  # and where a client of this machine finds a server of it
DRIVER = "postgresql+asyncpg"
CONNECT_SECONDS = 10
BACKLOG = 2048  # connections that wait to be accepted, as in uvicorn


class ServerError(RuntimeError):
    """Prefect's server did not start, or is in use by another command; the message says where to look."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Raises ServerError for what cannot be, or must not."""

    host: str = LOOPBACK  # an address of this machine, or 0.0.0.0 for all
    port: int = 0  # taken if it is free; 0, or not free: the system chooses
    database: str | None = field(default_factory=lambda: os.environ.get("VOLCAST_DATABASE") or None, repr=False)
    auth: str | None = field(default_factory=lambda: os.environ.get("VOLCAST_AUTH") or None, repr=False)
    names: tuple[str, ...] = ()  # by which a proxy or another machine asks for it

    def __post_init__(self) -> None:
        user, _, password = (self.auth or "").partition(":")
        if self.auth is not None and not (user and password and self.auth.isascii()):
            raise ServerError("VOLCAST_AUTH must be user:password, in ASCII.")
        if self.auth is None and not self.is_local:
            raise ServerError(
                f"On {self.host} others reach the server, and need a password. Set VOLCAST_AUTH=user:password "
                f"for the UI and all clients, or leave --host at {LOOPBACK}."
            )
        for name in self.names:
            if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
                raise ServerError(f"--known-as must be names such as volcast.example.org; {name!r} came.")
        if self.database is not None and _driver(self.database) != DRIVER:
            raise ServerError(f"The database must be {DRIVER}://user:password@host:5432/name; none at all is SQLite.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return _is_loopback(self.host)

    @property
    def client_host(self) -> str:
        """Where the commands, the worker and the flow runs of this machine find the server."""
        return ANY_ADDRESS.get(self.host) or (f"[{self.host}]" if ":" in self.host else self.host)

    @property
    def database_words(self) -> str:
        """The database for people, without its password."""
        return make_url(self.database).render_as_string(hide_password=True) if self.database else "SQLite"

    def environment(self) -> dict[str, str]:
        """For Prefect's server; what is secret goes this way only, never through a command line."""
        found = {"PREFECT_SERVER_UI_API_URL": "/api"}  # of wherever the browser found the UI
        return found | ({"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else {})

    def listen(self) -> socket.socket:
        """The server's socket, on the port if that is free; nobody else can take it from now on. Raises ServerError."""
        try:
            return self._bound(self.port)
        except OSError:
            return self._bound(0)

    def _bound(self, port: int) -> socket.socket:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)[0]
        except socket.gaierror as error:
            raise ServerError(f"--host must be an address of this machine; {self.host} came ({error}).") from error
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if port == 0:
                raise ServerError(f"--host must be an address of this machine; {self.host} came ({error}).") from error
            raise
        return listener


def require_database(options: ServerOptions) -> None:
    """Connect once, so that a wrong address or password is one line and no server's log. Raises ServerError."""
    if options.database is None:
        return
    try:
        asyncio.run(_connect(options.database))
    except (OSError, SQLAlchemyError, PostgresError, InterfaceError) as error:
        raise ServerError(
            f"The database {options.database_words} cannot be used: {error or type(error).__name__}. "
            "Expected a PostgreSQL server that runs, and a database, user and password that it knows."
        ) from error


async def _connect(url: str) -> None:
    engine = create_async_engine(url, connect_args={"timeout": CONNECT_SECONDS})
    try:
        async with engine.connect():
            pass
    finally:
        await engine.dispose()


def _driver(url: str) -> str | None:
    try:
        return make_url(url).drivername
    except (ArgumentError, ValueError):
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
