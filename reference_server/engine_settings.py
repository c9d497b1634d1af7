"""What an engine is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadkit.core.errors import InputError
from reference_server.policies import make_policy

MAY_BE_ZERO = ("host_blocks", "disk_blocks", "draft_tokens")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`max_batch_tokens` is the chunk budget of a step; the queue is bounded in both units.

    policy: see `policies`. host_blocks, disk_blocks: sizes of the tiers below the device, 0 for
    none; the disk's is one file, `disk_file`. draft_tokens: most guessed tokens a step and reply, 0
    for none. tenant_quota_blocks: most device blocks of one tenant, None for no bound.
    """

    block_size: int = 16
    num_blocks: int = 2048
    max_batch_tokens: int = 512
    max_num_seqs: int = 16
    max_queue_tokens: int = 262_144
    max_queue_requests: int = 1024
    policy: str = "lru"
    host_blocks: int = 0
    disk_blocks: int = 0
    disk_file: Path | None = None
    draft_tokens: int = 0
    tenant_quota_blocks: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value, least = getattr(self, name), 0 if name in MAY_BE_ZERO else 1
            if isinstance(value, int) and value < least:
                raise InputError(f"must be at least {least}", where=_option(name))
        if self.max_batch_tokens < self.max_num_seqs:
            raise InputError("must be at least --max-num-seqs", where="--max-batch-tokens")
        if bool(self.disk_blocks) != (self.disk_file is not None):
            raise InputError("give both or none", where="--disk-blocks, --disk-file")
        if (self.tenant_quota_blocks or 0) > self.num_blocks:
            raise InputError("is more than the cache holds", where="--tenant-quota-blocks")
        make_policy(self.policy, self.num_blocks, self.block_size)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
