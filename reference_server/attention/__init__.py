"""Attention that reads K/V through page tables: the one room of kernels, a backend chosen at start."""

from reference_server.attention.base import ATTENTION_NAME, Backend, Row, Step
from reference_server.attention.choose import choose_backend
from reference_server.attention.sdpa import SdpaBackend
from reference_server.attention.varlen import VarlenBackend

__all__ = [
    "ATTENTION_NAME",
    "Backend",
    "Row",
    "SdpaBackend",
    "Step",
    "VarlenBackend",
    "choose_backend",
]
