"""API keys: random, stored as hashes, compared in constant time, each with a name for the logs."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from emollm.core.errors import ConfigError
from emollm.serve.config import ServeConfig

ENVIRONMENT = "EMOLLM_API_KEYS"
_PREFIX = "emollm_"
_HOST = re.compile(r"\[?(.+?)\]?(?::\d*)?")
_LINE = re.compile(r"([\w.@-]{1,64})\s*=\s*sha256:([0-9a-f]{64})")


def new_key() -> str:
    """256 random bits, so that a single round of SHA-256 is enough to store it."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def key_line(name: str, key: str) -> str:
    """The line of a key file; raises ConfigError for a name that would not fit there."""
    line = f"{name} = sha256:{hash_key(key)}"
    if not _LINE.fullmatch(line):
        raise ConfigError(f"a key's name is 1 to 64 letters, digits and any of . @ _ -, not {name!r}")
    return line


def parse_keys(text: str, *, where: str) -> dict[str, str]:
    """Hashes by name from `name = sha256:...` entries, separated by lines or commas; # starts a comment.

    Raises ConfigError. The line itself is not quoted: it may hold a key.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(re.split(r"[\n,]", text), start=1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise ConfigError(
                f"{where}, entry {number}, is not `name = sha256:HASH`; make one: "
                "python -m emollm.serve.keys NAME --file FILE"
            )
        if found[1] in keys:
            raise ConfigError(
                f"{where} has two keys named {found[1]!r}; rename one, names identify requests in the logs"
            )
        keys[found[1]] = found[2]
    return keys


def read_keys(config: ServeConfig, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Hashes by name, from the key file, else from the environment; empty if there is neither."""
    if config.keys is None:
        return parse_keys(environment.get(ENVIRONMENT, ""), where=f"${ENVIRONMENT}")
    try:
        text = config.keys.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"--keys {config.keys} cannot be read: {reason}") from None
    keys = parse_keys(text, where=str(config.keys))
    if not keys:
        raise ConfigError(
            f"--keys {config.keys} holds no key; add one: python -m emollm.serve.keys NAME --file {config.keys}"
        )
    return keys


def check_access(config: ServeConfig, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The keys; raises ConfigError if others could reach an endpoint without keys."""
    keys = read_keys(config, environment)
    if not keys and not config.open_access and not is_loopback(config.host):
        raise ConfigError(
            f"--host {config.host} is open to other machines, and there are no API keys; make one: "
            "python -m emollm.serve.keys NAME --file keys.txt, then --keys keys.txt "
            "(or --open-access, behind a gateway that authenticates)"
        )
    return keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback_host(header: str) -> bool:
    """Whether a Host header, `localhost:8000` or `[::1]`, names this machine without DNS."""
    found = _HOST.fullmatch(header)
    return found is not None and is_loopback(found[1].lower())


def key_name(sent: str, keys: Mapping[str, str]) -> str | None:
    """The name of the key that was sent; None if it is unknown.

    All are compared, each in constant time: the time does not reveal how close a guess was.
    """
    sent_hash = hash_key(sent)
    found = None
    for name, stored in keys.items():
        if hmac.compare_digest(sent_hash, stored):
            found = name
    return found


def add_key(file: Path, name: str) -> str:
    """Append a new key to a file (created with mode 0600); returns the key, which is stored nowhere."""
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if name in parse_keys(before, where=str(file)):
        raise ConfigError(f"{file} already has a key named {name!r}; remove its line to replace it")
    key = new_key()
    line = key_line(name, key)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
            # An editor may have left the last line without a newline.
            stream.write(("\n" if before and not before.endswith("\n") else "") + line + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return key
