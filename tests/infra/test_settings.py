from pathlib import Path

import pytest

from infra.errors import InvalidArgument
from infra.settings import Settings, is_loopback, load_settings, split_address


def fails(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> InvalidArgument:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgument) as refused:
        load_settings()
    assert refused.value.reason == "SETTINGS_INVALID"
    return refused.value


def test_a_nested_value_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYAGENT_GATEWAY__PORT", "7800")
    monkeypatch.setenv("SKYAGENT_PEERS", '{"policy-engine": "127.0.0.1:7"}')
    settings = load_settings()
    assert settings.gateway.port == 7800
    assert settings.peers == {"policy-engine": "127.0.0.1:7"}


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYAGENT_LISTEN", "127.0.0.1:1")
    assert load_settings(listen="127.0.0.1:2").listen == "127.0.0.1:2"


def test_a_bad_value_is_refused_with_its_variable_and_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    (violation,) = fails(monkeypatch, "SKYAGENT_GATEWAY__PORT", "99999").violations
    assert violation.field == "SKYAGENT_GATEWAY__PORT"
    assert "99999" in violation.description


def test_a_list_that_is_no_json_is_refused_with_the_way_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lists and maps are JSON" in str(fails(monkeypatch, "SKYAGENT_PEERS", "policy=here"))


def test_a_misspelt_nested_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SKYAGENT_GATEWAY__PROT" in str(fails(monkeypatch, "SKYAGENT_GATEWAY__PROT", "1"))


def test_an_address_that_others_can_reach_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SKYAGENT_ALLOW_REMOTE" in str(fails(monkeypatch, "SKYAGENT_LISTEN", "0.0.0.0:7701"))
    monkeypatch.setenv("SKYAGENT_ALLOW_REMOTE", "true")
    assert load_settings().listen == "0.0.0.0:7701"


def test_a_gateway_that_others_can_reach_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gateway.host" in str(fails(monkeypatch, "SKYAGENT_GATEWAY__HOST", "192.168.1.5"))


def test_a_heartbeat_that_would_let_leases_lapse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at most half of ttl" in str(fails(monkeypatch, "SKYAGENT_LEASE__TTL", "1"))


def test_data_live_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SKYAGENT_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().data_dir == tmp_path / "skyagent"


def test_settings_cannot_be_changed_once_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.dry_run = True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_is_known_in_every_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("address", ["7701", "host:", ":7701", "host:x", "host:70000"])
def test_what_is_no_address_is_refused_by_value(address: str) -> None:
    with pytest.raises(ValueError, match=address):
        split_address(address)


def test_an_ipv6_address_keeps_its_colons() -> None:
    assert split_address("[::1]:7701") == ("::1", 7701)
