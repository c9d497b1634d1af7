"""How many device blocks each tenant has, and may have."""

from __future__ import annotations


class Quotas:
    """`quota` is the most blocks of one tenant that fill the capacity; None: no bound.

    counted: its resident, dead and reserved blocks. used: those of them that running requests hold.
    A tenant at its quota evicts its own blocks, so that a flood of prompts costs nobody else.
    """

    def __init__(self, quota: int | None):
        self.quota = quota
        self._counted: dict[bytes, int] = {}
        self._used: dict[bytes, int] = {}

    def count(self, tenant: bytes, num: int) -> None:
        _add(self._counted, tenant, num)

    def use(self, tenant: bytes, num: int) -> None:
        if self.quota is not None:
            _add(self._used, tenant, num)

    def num_counted(self, tenant: bytes) -> int:
        return self._counted.get(tenant, 0)

    @property
    def num_tenants(self) -> int:
        """Tenants that have blocks on the device."""
        return len(self._counted)

    @property
    def most_blocks(self) -> int:
        """Blocks of the tenant that has most; 0: nobody has any. From any thread."""
        return max(list(self._counted.values()), default=0)

    @property
    def num_at_quota(self) -> int:
        """From any thread."""
        if self.quota is None:
            return 0
        return sum(num >= self.quota for num in list(self._counted.values()))

    def is_full(self, tenant: bytes) -> bool:
        return self.quota is not None and self._counted.get(tenant, 0) >= self.quota

    def allows(self, tenant: bytes, num_more: int) -> bool:
        """Whether its running requests may hold that many more blocks."""
        return self.quota is None or self._used.get(tenant, 0) + num_more <= self.quota


def _add(counts: dict[bytes, int], tenant: bytes, num: int) -> None:
    left = counts.get(tenant, 0) + num
    if left:
        counts[tenant] = left
    else:
        counts.pop(tenant, None)
