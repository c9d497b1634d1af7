"""Who may call: the clients' keys, and the operator's."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from loadkit.core.errors import InputError

API_KEY_VARIABLE, ADMIN_KEY_VARIABLE = "LOADKIT_API_KEY", "LOADKIT_ADMIN_KEY"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `key` is the tenant, '' where no keys are set."""

    key: str = field(default="", repr=False)
    is_operator: bool = False


@dataclass(frozen=True, slots=True)
class Keys:
    """Every client key is a tenant of its own. The operator is whoever has `admin_key`; without
    one, the owner of the only client key, or everybody where there are no keys at all. With several
    client keys and no admin key nobody is: what one route shows of all tenants is then shown to
    none of them.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_key: str | None = field(default=None, repr=False)

    @property
    def are_set(self) -> bool:
        """Whether a client must have a key."""
        return bool(self.api_keys)

    def caller(self, authorization: str) -> Caller | None:
        """Who has this Authorization header. None: nobody who may call."""
        scheme, _, given = authorization.partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else ""
        if self.admin_key is not None and _same(key, self.admin_key):
            return Caller(key, is_operator=True)
        if not self.are_set:
            return Caller(is_operator=self.admin_key is None)
        found = [known for known in self.api_keys if _same(key, known)]  # all are compared
        alone = self.admin_key is None and len(self.api_keys) == 1
        return Caller(found[0], is_operator=alone) if found else None


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())


def read_keys(api_key_file: Path | None, admin_key_file: Path | None) -> Keys:
    """From the files, else from the environment. InputError for what is no key, or two admins."""
    admin = _read(admin_key_file, ADMIN_KEY_VARIABLE)
    if len(admin) > 1:
        raise InputError("there is one admin key, the file has more lines", where=admin_key_file)
    return Keys(_read(api_key_file, API_KEY_VARIABLE), admin[0] if admin else None)


def _read(path: Path | None, variable: str) -> tuple[str, ...]:
    """The keys in the file, a line each, else the one in the environment; maybe none."""
    lines = [os.environ.get(variable, "")] if path is None else _lines(path)
    keys = tuple(line.strip() for line in lines if line.strip())
    if path is not None and not keys:
        raise InputError("the file is empty", where=path)
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise InputError(
            "a key has characters that no HTTP header carries",
            where=variable if path is None else path,
            remedy="use printable ASCII without spaces",
        )
    return keys


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the key: {error}", where=path) from error
