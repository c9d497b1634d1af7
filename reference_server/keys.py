"""Who may call: the clients' keys, and the operator's."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field


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
