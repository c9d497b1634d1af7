"""Fused layers give what the separate ones gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reference_server import fused_linear
from reference_server.fused_linear import Follower, Lead, fuse


class Block(nn.Module):
    """As attention and a gated MLP call their layers, k with fewer outputs than q."""

    def __init__(self, bias: bool):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, n, bias=bias) for n in (12, 4, 4))
        self.gate_proj, self.up_proj = (nn.Linear(8, 6, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(6, 8, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        mlp = self.down_proj(torch.relu(self.gate_proj(x)) * self.up_proj(x))
        return torch.cat([q.view(1, -1, 3, 4).flatten(2), k, v, mlp], -1)


@pytest.fixture(params=["packed", "plain"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(fused_linear, "_can_pack", lambda weight: False)
    elif not fused_linear._can_pack(torch.zeros(1)):
        pytest.skip("this torch has no oneDNN layouts")
    return str(request.param)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_outputs_stay_the_same(packing: str, bias: bool, rows: int) -> None:
    torch.manual_seed(1)
    block, x = Block(bias), torch.randn(1, rows, 8)
    with torch.inference_mode():
        before = block(x)
        num = fuse(block)
        after = [block(x), block(x)]
    assert num == (3 if packing == "packed" else 2)
    assert isinstance(block.q_proj, Lead)
    assert isinstance(block.v_proj, Follower)
    for out in after:
        assert torch.allclose(out, before, atol=1e-5)


def test_a_follower_asked_about_another_input_computes_it_itself(packing: str) -> None:
    torch.manual_seed(1)
    block, x, y = Block(False), torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    with torch.inference_mode():
        k, v = block.k_proj(y), block.v_proj(x)
        fuse(block)
        block.q_proj(x)
        assert torch.allclose(block.k_proj(y), k, atol=1e-5)
        assert torch.allclose(block.v_proj(x), v, atol=1e-5)


def test_nothing_is_kept_of_a_step(packing: str) -> None:
    block = Block(False)
    fuse(block)
    with torch.inference_mode():
        block(torch.randn(1, 3, 8))
    for module in block.modules():
        if isinstance(module, Lead):
            assert module.input is None
            assert module.parts == ()


def test_layers_of_another_kind_or_half_with_bias_are_left_alone(packing: str) -> None:
    class Special(nn.Linear):
        pass

    block = Block(False)
    block.k_proj = Special(8, 4, bias=False)
    block.up_proj = nn.Linear(8, 6, bias=True)
    fuse(block)
    assert type(block.k_proj) is Special
    assert not isinstance(block.up_proj, Follower)
