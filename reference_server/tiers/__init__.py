"""Where blocks go when the device is full: host memory, then one file on disk."""

from __future__ import annotations

from reference_server.tiers.base import Pages, Slab
from reference_server.tiers.lower import LowerTiers

__all__ = ["LowerTiers", "Pages", "Slab"]
