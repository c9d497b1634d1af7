"""Both attention backends against attention written out per query, in float64."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_server.attention import (
    Backend,
    Row,
    SdpaBackend,
    VarlenBackend,
    choose,
    choose_backend,
)

BLOCK, HEADS, KV_HEADS, DIM, SCALE = 4, 4, 2, 8, 0.3
GEOMETRY = (HEADS, KV_HEADS, DIM)


def attend_one(query: Tensor, keys: Tensor, values: Tensor, scale: float = SCALE) -> Tensor:
    """One query token (heads, dim) over all given keys (n, kv heads, dim)."""
    out = []
    for head in range(HEADS):
        kv = head * KV_HEADS // HEADS
        weights = torch.softmax(keys[:, kv].double() @ query[head].double() * scale, 0)
        out.append(weights @ values[:, kv].double())
    return torch.stack(out)


def naive_varlen(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    seqused_k: Tensor,
    block_table: Tensor,
    window_size: tuple[int, int],
    **options: Any,
) -> Tensor:
    """torch's varlen_attn as its documentation says: paged, causal aligned to the last key."""
    assert window_size == (-1, 0)
    assert (int(seqused_k.max()), int(cu_seq_q.diff().max())) == (max_k, max_q)
    out = torch.empty_like(query)
    for row, used in enumerate(seqused_k.tolist()):
        k, v = (part[block_table[row].long()].flatten(0, 1)[:used] for part in (keys, values))
        begin, end = cu_seq_q[row : row + 2].tolist()
        for i in range(begin, end):
            seen = used - (end - 1 - i)
            out[i] = attend_one(query[i], k[:seen], v[:seen], scale).float()
    return out


@pytest.fixture(params=["sdpa", "varlen"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "sdpa":
        return SdpaBackend()
    made = VarlenBackend(BLOCK)
    made._attend = naive_varlen  # the real one needs CUDA: what it is given is tested here
    return made


def test_prompts_chunks_and_decodes_in_one_batch_over_scattered_pages(backend: Backend) -> None:
    """A whole prompt of 6, two decodes at 9 and 3, and the last 5 tokens of a prompt of 12."""
    generator = torch.Generator().manual_seed(4)
    pool = torch.randn(2, 12 * BLOCK, KV_HEADS, DIM, generator=generator)
    query = torch.randn(13, HEADS, DIM, generator=generator)
    plan = [(6, [3, 7], 6), (1, [11, 2, 5], 9), (5, [1, 9, 4], 12), (1, [8], 3)]
    slots = torch.arange(12 * BLOCK).view(12, BLOCK)
    rows, begin = [], 0
    for new, pages, context in plan:
        own = slots[pages].flatten()[:context]
        rows.append(Row(begin, begin + new, own, own[-new:], pages))
        begin += new
    out = backend.attend(
        query, (pool[0], pool[1]), SCALE, backend.prepare(rows, torch.device("cpu"))
    )
    for row in rows:
        for i in range(row.begin, row.end):
            seen = row.slots[: row.context - (row.end - 1 - i)]
            wanted = attend_one(query[i], pool[0][seen], pool[1][seen])
            assert torch.allclose(out[i].double(), wanted, atol=1e-5), (row, i)


def test_a_cpu_gets_plain_attention() -> None:
    assert choose_backend(torch.device("cpu"), torch.float32, BLOCK, GEOMETRY).name == "sdpa"


def test_varlen_attn_takes_what_it_is_given() -> None:
    """The installed torch's own signature, against the call that no CPU can make."""
    from torch.nn.attention.varlen import varlen_attn

    asked: list[tuple[Any, Any]] = []

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        asked.append((args, kwargs))
        return torch.zeros(1)

    made = VarlenBackend(BLOCK)
    made._attend = note
    pool = torch.zeros(2 * BLOCK, KV_HEADS, DIM)
    slots = torch.arange(2)
    state = made.prepare([Row(0, 1, slots, slots[-1:], [1])], torch.device("cpu"))
    made.attend(torch.zeros(1, HEADS, DIM), (pool, pool), SCALE, state)
    ((args, kwargs),) = asked
    given = inspect.signature(varlen_attn).bind(*args, **kwargs).arguments
    assert (given["window_size"], given["num_splits"], given["cu_seq_k"]) == ((-1, 0), 1, None)
    assert given["key"].shape == (2, BLOCK, KV_HEADS, DIM)
    names = ("cu_seq_q", "seqused_k", "block_table")
    assert {given[name].dtype for name in names} == {torch.int32}


class FakeCuda:
    """A CUDA device of some capability, with or without the packages of FlashAttention 3 and 4."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, major: int, *, installed: bool = True):
        import torch.nn.attention as flash

        self.active: str | None = None
        self.installed = installed
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
        monkeypatch.setattr(flash, "activate_flash_attention_impl", self.activate)
        monkeypatch.setattr(flash, "restore_flash_attention_impl", self.restore)
        monkeypatch.setattr(flash, "current_flash_attention_impl", lambda: self.active)

    def activate(self, name: str) -> None:
        if not self.installed:
            raise ModuleNotFoundError("No module named 'flash_attn_interface'")
        self.active = name

    def restore(self) -> None:
        self.active = None

    def backend(self) -> str:
        return choose_backend(torch.device("cuda"), torch.bfloat16, BLOCK, GEOMETRY).name


@pytest.mark.parametrize(("major", "implementation"), [(9, "FA3"), (10, "FA4")])
def test_block_tables_are_read_by_the_flash_attention_of_the_device(
    monkeypatch: pytest.MonkeyPatch, major: int, implementation: str
) -> None:
    """torch's own FlashAttention 2 reads none: another one is active before it is probed."""
    device = FakeCuda(monkeypatch, major)
    probed: list[str | None] = []
    monkeypatch.setattr(choose, "agrees", lambda *args: not probed.append(device.active))
    assert device.backend() == "varlen"
    assert (probed, device.active) == ([implementation], implementation)


def test_a_gpu_without_block_tables_gathers_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choose, "agrees", lambda *args: False)
    for major, installed, reason in (
        (8, True, "capability 8.0"),
        (9, False, "flash_attn_interface"),
        (9, True, "disagrees"),
    ):
        device = FakeCuda(monkeypatch, major, installed=installed)
        assert device.backend() == "sdpa"
        assert device.active is None
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("block_size", [1, 2, 16])
def test_the_probe_tells_a_right_kernel_from_a_wrong_one(block_size: int) -> None:
    cpu = torch.device("cpu")
    made = VarlenBackend(block_size)
    made._attend = naive_varlen
    assert choose.agrees(made, cpu, torch.float32, block_size, GEOMETRY)

    def other_pages(*args: Any, seqused_k: Tensor, **options: Any) -> Tensor:
        options["block_table"] = options["block_table"].flip(1)
        return naive_varlen(*args, seqused_k=seqused_k, **options)

    made._attend = other_pages
    assert not choose.agrees(made, cpu, torch.float32, block_size, GEOMETRY)
