"""How many bytes of KV cache a model keeps for a token, from its config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError

_DTYPE_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
}


def read_bytes_per_token(path: Path, kv_dtype: str | None = None) -> int:
    """`bytes_per_token` of a config.json, or of the one in a model's folder."""
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"no JSON: {error}", where=file) from error
    if not isinstance(config, dict):
        raise InputError("no JSON object", where=file, remedy="give a model's config.json")
    try:
        return bytes_per_token(config, kv_dtype)
    except InputError as error:
        raise InputError(error.what, where=file, remedy=error.remedy) from error


def bytes_per_token(config: Mapping[str, Any], kv_dtype: str | None = None) -> int:
    """Bytes of keys and values that all layers keep for one token, on all GPUs together.

    2 (key, value) x layers x kv heads x head_dim x bytes a number; with multi-head latent attention
    layers x (kv_lora_rank + qk_rope_head_dim) x bytes a number, as one vector serves for both.
    `kv_dtype` is the cache's own if the engine was told one (fp8), else it is the model's. InputError
    for a model whose layers do not all keep every token, since no size a token is right then.
    """
    model = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    assert isinstance(model, Mapping)
    _check_full_attention(model)
    layers = _number(model, "num_hidden_layers", "n_layer")
    size = _dtype_bytes(kv_dtype or _dtype_name(model) or _dtype_name(config))
    if model.get("kv_lora_rank") is not None:
        return layers * (_number(model, "kv_lora_rank") + _number(model, "qk_rope_head_dim")) * size
    heads = _number(model, "num_attention_heads", "n_head")
    kv_heads = heads
    if model.get("num_key_value_heads") is not None:
        kv_heads = _number(model, "num_key_value_heads")
    if model.get("head_dim") is not None:
        head_dim = _number(model, "head_dim")
    else:
        head_dim = _number(model, "hidden_size", "n_embd") // heads
    return 2 * layers * kv_heads * head_dim * size


def _check_full_attention(model: Mapping[str, Any]) -> None:
    kinds = model.get("layer_types")
    partial = isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds)
    window = model.get("sliding_window") and model.get("use_sliding_window", True)
    if partial or (kinds is None and window):
        raise InputError(
            "some layers keep only a window or a state: bytes a token depend on the prompt",
            remedy="give the capacity in tokens (3Mtok), as the engine's log reports it at start",
        )


def _dtype_name(config: Mapping[str, Any]) -> str | None:
    name = config.get("dtype", config.get("torch_dtype"))
    return name if isinstance(name, str) else None


def _dtype_bytes(name: str | None) -> int:
    if name is None or name.removeprefix("torch.") not in _DTYPE_BYTES:
        raise InputError(
            f"the type of the cache's numbers is {'not given' if name is None else repr(name)}",
            remedy=f"--kv-dtype, one of {', '.join(_DTYPE_BYTES)}",
        )
    return _DTYPE_BYTES[name.removeprefix("torch.")]


def _number(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
    raise InputError(f"no {names[0]} above 0", remedy="is this a language model's config.json?")
