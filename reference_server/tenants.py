"""How many device blocks each tenant has, and may have."""

from __future__ import annotations

from collections import Counter


class Quotas:
    """`quota` is the most blocks of one tenant that fill the capacity; None: no bound.

    counted: its resident, dead and reserved blocks. used: those of them that running requests hold.
    A tenant at its quota evicts its own blocks, so that a flood of prompts costs nobody else.
    """

    def __init__(self, quota: int | None):
        self.quota = quota
        self._counted: Counter[bytes] = Counter()
        self._used: Counter[bytes] = Counter()

    def count(self, tenant: bytes, num: int) -> None:
        _add(self._counted, tenant, num)

    def use(self, tenant: bytes, num: int) -> None:
        _add(self._used, tenant, num)

    def num_counted(self, tenant: bytes) -> int:
        return self._counted[tenant]

    @property
    def num_tenants(self) -> int:
        """Tenants that have blocks on the device."""
        return len(self._counted)

    def is_full(self, tenant: bytes) -> bool:
        return self.quota is not None and self._counted[tenant] >= self.quota

    def allows(self, tenant: bytes, num_more: int) -> bool:
        """Whether its running requests may hold that many more blocks."""
        return self.quota is None or self._used[tenant] + num_more <= self.quota


def _add(counter: Counter[bytes], tenant: bytes, num: int) -> None:
    counter[tenant] += num
    if not counter[tenant]:
        del counter[tenant]
