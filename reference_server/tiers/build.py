"""The lower tiers of a server: sizes from its settings, layout from its pool."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_server.kv_pool import KVPool
from reference_server.node import DISK, HOST
from reference_server.tiers.disk import DiskSlab
from reference_server.tiers.host import HostSlab
from reference_server.tiers.lower import SPARE_SLOTS, LowerTiers, Tier


def make_tiers(
    pool: KVPool, host_blocks: int, disk_blocks: int, disk_file: Path | None, fingerprint: bytes
) -> LowerTiers:
    """0 blocks: no such tier. `fingerprint`: of the weights, see `model_fingerprint`."""
    tiers = []
    shape, dtype = pool.payload_shape, pool.tensor.dtype
    if host_blocks:
        pinned = pool.tensor.device.type == "cuda"
        slab = HostSlab(host_blocks + SPARE_SLOTS, shape, dtype, pinned=pinned)
        tiers.append(Tier(HOST, slab, host_blocks))
    if disk_blocks and disk_file is not None:
        tiers.append(Tier(DISK, _disk(pool, disk_blocks, disk_file, fingerprint), disk_blocks))
    return LowerTiers(tiers, pool)


def _disk(pool: KVPool, num_blocks: int, path: Path, fingerprint: bytes) -> DiskSlab:
    shape, dtype = pool.payload_shape, pool.tensor.dtype
    layout = f"{shape} {dtype}".encode()
    payload_bytes = pool.tensor[:, :, 0].numel() * pool.tensor.element_size()

    def from_bytes(data: bytes) -> Tensor:
        return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)

    return DiskSlab(
        path,
        num_blocks + SPARE_SLOTS,
        pool.block_size,
        payload_bytes,
        hashlib.blake2b(fingerprint + layout, digest_size=32).digest(),
        _to_bytes,
        from_bytes,
    )


def _to_bytes(payload: Tensor) -> bytes:
    made: bytes = payload.contiguous().cpu().view(torch.uint8).numpy().tobytes()
    return made


def model_fingerprint(model: Any) -> bytes:
    """Of the configuration, and of every weight: another fine-tune's K/V must never be taken."""
    digest = hashlib.blake2b(model.config.to_json_string(use_diff=False).encode(), digest_size=32)
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy())
    return digest.digest()
