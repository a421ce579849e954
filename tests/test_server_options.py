import socket

import pytest

from benchmarks.programs import free_port
from volcast.flows.server_options import ServerError, ServerOptions


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLCAST_AUTH", raising=False)
    monkeypatch.delenv("VOLCAST_DATABASE", raising=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "box.example", ""])
def test_an_address_that_others_reach_demands_a_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=r"Set VOLCAST_AUTH=user:password .* leave --host at 127\.0\.0\.1"):
        ServerOptions(host=host)
    monkeypatch.setenv("VOLCAST_AUTH", "operator:secret")
    options = ServerOptions(host=host)
    assert (options.auth, options.is_local) == ("operator:secret", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_address_of_this_machine_alone_demands_none_for_the_server_makes_one(host: str) -> None:
    assert (ServerOptions(host=host).auth, ServerOptions(host=host).is_local) == (None, True)


def test_a_taken_port_is_left_alone_and_a_free_one_that_is_preferred_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with ServerOptions(port=taken.getsockname()[1]).listen() as other:
            assert other.getsockname()[1] != taken.getsockname()[1]
    port = free_port()
    with ServerOptions(port=port).listen() as listener:
        assert listener.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize("name", ["*", "a b", "https://volcast.example", "volcast.example:80", "b..c", "[::1]"])
def test_what_is_no_name_is_no_name_of_the_server(name: str) -> None:
    with pytest.raises(ServerError, match=r"--known-as must be names such as volcast\.example\.org; .* came"):
        ServerOptions(names=("volcast.example", name))


@pytest.mark.parametrize(
    ("host", "found_at"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("192.168.1.5", "192.168.1.5")],
)
def test_commands_of_the_machine_find_a_server_on_any_address(host: str, found_at: str) -> None:
    assert ServerOptions(host=host, auth="operator:secret").client_host == found_at


@pytest.mark.parametrize("auth", ["operator", "operator:", ":secret", "operator:geheimnisträger"])
def test_half_a_password_is_refused_without_being_printed(auth: str) -> None:
    with pytest.raises(ServerError, match=r"^VOLCAST_AUTH must be user:password, in ASCII\.$"):
        ServerOptions(auth=auth)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/d", "mysql://u:secret@h/d", "secret", "postgresql+asyncpg"])
def test_a_database_of_another_kind_is_refused_without_being_printed(url: str) -> None:
    with pytest.raises(ServerError, match=r"must be postgresql\+asyncpg://user:password@host:5432/name") as refused:
        ServerOptions(database=url)
    assert "secret" not in str(refused.value)


def test_what_is_secret_is_not_shown_with_the_options() -> None:
    options = ServerOptions(database="postgresql+asyncpg://u:secret@h/d", auth="operator:secret")
    assert "secret" not in repr(options)
    assert options.database_words == "postgresql+asyncpg://u:***@h/d"
