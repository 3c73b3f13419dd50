"""API keys: how they are made, stored and compared. No Ray."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from emollm.core.errors import ConfigError
from emollm.serve.auth import (
    ENVIRONMENT,
    add_key,
    check_access,
    hash_key,
    is_loopback,
    is_loopback_host,
    key_line,
    key_name,
    parse_keys,
)
from emollm.serve.config import ServeConfig
from tests.conftest import ROOT


def test_a_file_holds_hashes_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    first, second = add_key(file, "dashboard"), add_key(file, "ana@lab")
    assert first != second
    assert len(first) > 40
    text = file.read_text()
    assert first not in text
    assert hash_key(first) in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = check_access(ServeConfig(model="m", host="0.0.0.0", keys=file), {})
    assert (key_name(first, keys), key_name(second, keys)) == ("dashboard", "ana@lab")
    for wrong in ("", first[:-1], first + "x", hash_key(first), "dashboard", "\udcff"):
        assert key_name(wrong, keys) is None
    with pytest.raises(ConfigError, match="already"):
        add_key(file, "ana@lab")
    with pytest.raises(ConfigError, match="letters"):
        add_key(file, "ana = lab")


def test_a_key_is_appended_on_a_new_line_even_after_a_missing_newline(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(key_line("by-hand", "secret"))
    key = add_key(file, "ana")
    keys = parse_keys(file.read_text(), where="file")
    assert (key_name("secret", keys), key_name(key, keys)) == ("by-hand", "ana")
    assert file.read_text().count("\n") == 2


def test_keys_come_from_the_environment_too() -> None:
    environment = {ENVIRONMENT: f"{key_line('a', 'secret-a')}, {key_line('b', 'secret-b')}"}
    keys = check_access(ServeConfig(model="m", host="0.0.0.0"), environment)
    assert key_name("secret-b", keys) == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = my-plain-key", "entry 1, is not"),
        ("# fine\n\na", "entry 3, is not"),
        (f"{key_line('a', 'x')}\n{key_line('a', 'y')}", "two keys named 'a'"),
        ("# none", "holds no key"),
    ],
)
def test_a_broken_file_is_refused_without_quoting_it(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        check_access(ServeConfig(model="m", keys=file), {})
    assert "my-plain-key" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        check_access(ServeConfig(model="m", keys=tmp_path / "none.txt"), {})
    assert parse_keys("", where="nowhere") == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_without_keys_it_does_not_start_on_other_addresses(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="there are no API keys"):
        check_access(ServeConfig(model="m", host=host), {})
    assert check_access(ServeConfig(model="m", host=host, open_access=True), {}) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert check_access(ServeConfig(model="m", host=host), {}) == {}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.2:80", "[::1]", "[::1]:8000"])
def test_a_host_header_may_name_this_machine(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["", "a.example", "a.example:8000", "10.1.2.3", "localhost.a.example", "127.0.0.1.a.example"]
)
def test_or_another(host: str) -> None:
    assert not is_loopback_host(host)


def test_the_command_prints_the_key_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    command = [sys.executable, "-m", "emollm.serve.keys", "ana", "--file", str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert key_name(ran.stdout.strip(), parse_keys(file.read_text(), where="file")) == "ana"
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert "already" in ran.stderr
