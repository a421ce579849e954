import pytest

from flows.server_options import ServerError, ServerOptions


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLCAST_AUTH", raising=False)
    monkeypatch.delenv("VOLCAST_DATABASE", raising=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "box.example", ""])
def test_an_address_that_others_reach_demands_a_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=r"Set VOLCAST_AUTH=user:password .* leave --host at 127\.0\.0\.1"):
        ServerOptions(host=host)
    monkeypatch.setenv("VOLCAST_AUTH", "operator:secret")
    environment = ServerOptions(host=host).environment()
    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == "operator:secret"
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_address_of_this_machine_alone_demands_none_and_takes_one(host: str) -> None:
    assert "PREFECT_SERVER_API_AUTH_STRING" not in ServerOptions(host=host).environment()
    assert "PREFECT_SERVER_API_AUTH_STRING" in ServerOptions(host=host, auth="operator:secret").environment()


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
