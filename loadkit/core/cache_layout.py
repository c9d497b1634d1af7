"""How vLLM lays out a model's cache, from its config.json: tokens a block, and what has to be kept.

Most models keep keys and values of every token in every layer, in blocks of 16 tokens. Others do not:

- **State layers** (Mamba, gated delta net, short convolutions) keep one state for a whole prefix. vLLM
  gives all layers pages of one size, so it raises the attention block until its page is as large as a
  state: 528 tokens for Qwen3.5-4B, 8,320 for Nemotron 3 Super. A hit then ends at a multiple of that.
- **Windows** keep the last tokens only, so a hit needs the blocks of the last window before its end.

Rules and state sizes are those of vLLM 0.32 (`platforms/interface.py`, `_align_hybrid_block_size`;
`layers/mamba/mamba_utils.py`; `get_mamba_state_shape_from_config` of each model), checked against the
block sizes that its issues 40696, 48401, 53749 and 54607 report. An architecture that is not in the
tables below is said to be unknown; a layout that cannot be computed has no block size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadkit.core.errors import InputError

Config = Mapping[str, Any]
T = TypeVar("T")
DEFAULT_BLOCK = 16  # vLLM's, and the unit of its attention kernels on GPUs
_LATENT_BLOCK = 128  # a state model with latent attention: at least this
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


class CacheLayout(msgspec.Struct, frozen=True):
    """What one model's cache looks like in vLLM. None: cannot be told from the config.

    block_size: hits end at its multiples. hash_block: tokens a hash covers; the same unless a server
    is started with --prefix-match-unit. token_bytes: one token in one attention layer, state_bytes:
    one state of one state layer, both on one GPU. window: tokens that a window layer sees. known: the
    architecture is in the tables. full_attention: some layer keeps every token. why: what the block size comes from, as a sentence. notes: what else
    a reader must know.
    """

    architecture: str | None
    known: bool
    block_size: int | None
    hash_block: int | None
    token_bytes: int | None
    state_bytes: int | None
    window: int | None
    why: str
    notes: tuple[str, ...] = ()
    full_attention: bool = True

    @property
    def shortest_prefix(self) -> int | None:
        """Tokens that two prompts must share before one of them can hit: a block."""
        return self.block_size

    @property
    def shortest_prompt(self) -> int | None:
        """Tokens of the shortest prompt that can hit: its last token is always computed."""
        return None if self.block_size is None else self.block_size + 1

    @property
    def kept_blocks(self) -> tuple[int, ...]:
        """Blocks that must be kept right before the end of a hit, one figure for each kind of layer
        that does not keep all blocks: 1 for states, the last window's for windows. Empty where every
        layer keeps a window only, too: their rule is another one, and is not modelled."""
        if self.block_size is None or not self.full_attention:
            return ()
        return kept_blocks(self.block_size, states=self.state_bytes is not None, window=self.window)


def kept_blocks(block_size: int, *, states: bool, window: int | None) -> tuple[int, ...]:
    """Blocks before a hit's end, of each kind of layer: one for a state, a window's without a token."""
    windows = () if window is None else (ceil((window - 1) / block_size),)
    return tuple(blocks for blocks in (*((1,) if states else ()), *windows) if blocks > 0)


@dataclass(frozen=True, slots=True)
class Served:
    """How the engine runs the model, as far as the layout depends on it. None: as the model says.

    block_size: the server's own --block-size, which is raised where need be.
    """

    kv_dtype: str | None = None
    state_dtype: str | None = None
    tensor_parallel: int = 1
    block_size: int = DEFAULT_BLOCK


def config_file(path: Path) -> Path:
    """The path, or the config.json in it if it is a model's folder."""
    return path / "config.json" if path.is_dir() else path


def read_config(path: Path) -> dict[str, Any]:
    """A model's config.json, or the one in its folder. InputError if it is none."""
    file = config_file(path)
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"no JSON: {error}", where=file) from error
    if not isinstance(config, dict):
        raise InputError("no JSON object", where=file, remedy="give a model's config.json")
    return config


def read_layout(path: Path, served: Served | None = None) -> CacheLayout:
    """`cache_layout` of a config.json, or of the one in a model's folder."""
    return _placed(path, lambda config: cache_layout(config, served))


def read_bytes_per_token(path: Path, kv_dtype: str | None = None) -> int:
    """`bytes_per_token` of a config.json, or of the one in a model's folder."""
    return _placed(path, lambda config: bytes_per_token(config, kv_dtype))


def cache_layout(config: Config, served: Served | None = None) -> CacheLayout:
    """The layout of a model. InputError for a config whose numbers are missing or make no sense."""
    served = served or Served()
    model = _text_model(config)
    name = _architecture(config)
    kinds = _layer_kinds(model)
    if name is not None and name in _STATES and _has_states(name, model, kinds):
        return _of_states(name, _STATES[name], config, model, served)
    if _has_states(name, model, kinds):
        who = f"architecture {name} is not known" if name else "the config names no architecture"
        return _not_computed(name, False, f"{who}, and some layers seem to keep a state")
    return _of_attention(name, config, model, kinds, served)


def _of_states(
    name: str, state: _State, config: Config, model: Config, served: Served
) -> CacheLayout:
    """The attention block is raised until its page is not smaller than a state's."""
    dtype = _dtype_name(model) or _dtype_name(config)
    latent = model.get("kv_lora_rank") is not None
    token_bytes = _token_bytes(model, dtype, served)
    state_bytes = _state_bytes(state(model, served.tensor_parallel), dtype, served)
    unit = max(served.block_size, _LATENT_BLOCK if latent else DEFAULT_BLOCK)
    size = max(served.block_size, unit * ceil(state_bytes / (unit * token_bytes)))
    notes = [] if name not in _LEFT_VLLM else [f"vLLM has it up to {_LEFT_VLLM[name]} only"]
    if served.tensor_parallel == 1:
        notes.append("on one GPU; with tensor parallelism give --tensor-parallel")
    notes.append("without speculative decoding, which makes states larger")
    why = (
        f"a state of {_megabytes(state_bytes)} needs blocks of {size:,} tokens of"
        f" {token_bytes:,} bytes"
        if size > served.block_size
        else f"a state of {_megabytes(state_bytes)} fits into a block of {size} tokens"
    )
    return CacheLayout(name, True, size, size, token_bytes, state_bytes, None, why, tuple(notes))


def _of_attention(
    name: str | None, config: Config, model: Config, kinds: frozenset[str], served: Served
) -> CacheLayout:
    size, known = served.block_size, name in _ATTENTION or name in _STATES
    if _unequal_pages(model, kinds):
        why = "its layers have heads of several sizes, so blocks of several sizes"
        return _not_computed(name, known, why)
    if model.get("kv_lora_rank") is not None:
        why = "latent attention: the GPU's kernel decides (FlashMLA 64 tokens, CUTLASS 128)"
        return _not_computed(name, known, why)
    try:
        token_bytes = _token_bytes(model, _dtype_name(model) or _dtype_name(config), served)
    except InputError:
        token_bytes = None
    window, notes = _window(model, kinds), []
    if "chunked_attention" in kinds or model.get("attention_chunk_size") is not None:
        notes.append("layers that attend to chunks keep every block, unless vLLM is told otherwise")
    if not known:
        named = f"architecture {name} is not known" if name else "the config names no architecture"
        notes.insert(0, f"{named}: blocks of {size} tokens assumed; check the server's /metrics")
    why = f"every layer keeps every token, in vLLM's blocks of {size} tokens"
    everywhere = window is not None and not kinds & _FULL_KINDS and name not in _MIXED_WINDOWS
    if window is not None:
        some = "every layer keeps" if everywhere else "some layers keep"
        why = f"vLLM's blocks of {size} tokens; {some} a window of {window:,} tokens"
    if everywhere:
        notes.append(
            "since 0.29 vLLM keeps the last window of each prompt only where every layer has one: that is"
            " not modelled, and every block counts as kept (an upper bound)"
        )
    return CacheLayout(
        *(name, known, size, size, token_bytes, None, window, why, tuple(notes)),
        full_attention=not everywhere,
    )


def _not_computed(name: str | None, known: bool, why: str) -> CacheLayout:
    note = "no block size can be computed: give --block-size, as the server's /metrics says it"
    return CacheLayout(name, known, None, None, None, None, None, why, (note,))


def bytes_per_token(config: Config, kv_dtype: str | None = None) -> int:
    """Bytes of keys and values that all layers keep for one token, on all GPUs together.

    2 (key, value) x layers x kv heads x head_dim x bytes a number; with multi-head latent attention
    layers x (kv_lora_rank + qk_rope_head_dim) x bytes a number, as one vector serves for both.
    `kv_dtype` is the cache's own if the engine was told one (fp8), else it is the model's. InputError
    for a model whose layers do not all keep every token, since no size a token is right then.
    """
    model = _text_model(config)
    _check_full_attention(_architecture(config), model)
    layers = _number(model, "num_hidden_layers", "n_layer")
    dtype = _dtype_name(model) or _dtype_name(config)
    return layers * _token_bytes(model, dtype, Served(kv_dtype))


def _check_full_attention(name: str | None, model: Config) -> None:
    kinds = _layer_kinds(model)
    partial = _has_states(name, model, kinds) or kinds - _FULL_KINDS
    if partial or _window(model, kinds) is not None:
        raise InputError(
            "some layers keep only a window or a state: bytes a token depend on the prompt",
            remedy="give the capacity in tokens (3Mtok), as the engine's log reports it at start",
        )


def _token_bytes(model: Config, dtype: str | None, served: Served) -> int:
    """Of one token in one attention layer, on one GPU: key and value of its kv heads."""
    size = _dtype_bytes(served.kv_dtype or dtype, "--kv-dtype", "cache")
    if model.get("kv_lora_rank") is not None:
        return (_number(model, "kv_lora_rank") + _number(model, "qk_rope_head_dim")) * size
    heads = _number(model, "num_attention_heads", "n_head")
    kv_heads = heads
    if model.get("num_key_value_heads") is not None:
        kv_heads = _number(model, "num_key_value_heads")
    return 2 * max(1, kv_heads // served.tensor_parallel) * _head_dim(model, heads) * size


def _head_dim(model: Config, heads: int) -> int:
    for name in ("attention_head_dim", "head_dim", "hidden_size_per_head"):  # the first is Zamba2's
        if model.get(name) is not None:
            return _number(model, name)
    return _number(model, "hidden_size", "n_embd") // heads


# Numbers of one state: of the convolution (the model's type), and of the recurrence with its type
# (None: the convolution's).
@dataclass(frozen=True, slots=True)
class _Numbers:
    conv: int
    recurrent: int
    dtype: str | None = None


_State = Callable[[Config, int], _Numbers]  # of a config, on one of so many GPUs


def _state_bytes(numbers: _Numbers, dtype: str | None, served: Served) -> int:
    conv = _dtype_bytes(dtype, "--state-dtype", "model")
    recurrent = served.state_dtype or numbers.dtype
    own = conv if recurrent is None else _dtype_bytes(recurrent, "--state-dtype", "state")
    return numbers.conv * conv + numbers.recurrent * own


def _conv(width: int, kernel: int) -> int:
    return width * (kernel - 1)


def _mamba1(model: Config, gpus: int) -> _Numbers:
    inner = _number(model, "mamba_expand") * _number(model, "hidden_size") // gpus
    kernel, state = _number(model, "mamba_d_conv"), _number(model, "mamba_d_state")
    return _Numbers(_conv(inner, kernel), inner * state)


def _mamba2(
    heads: str, head_dim: str, groups: str, state: str, kernel: str, dtype: str | None = None
) -> _State:
    """Mamba 2 under the names that a family of models gives its numbers. dtype: of the recurrent
    state, unless the config names one. Groups that GPUs cannot share out evenly are on every one."""

    def numbers(model: Config, gpus: int) -> _Numbers:
        h, d = _number(model, heads), _number(model, head_dim)
        g, n = _number(model, groups), _number(model, state)
        if g % gpus:
            g = gpus
        named = model.get("mamba_ssm_cache_dtype") if dtype is not None else None
        own = named if isinstance(named, str) else dtype
        width = (h * d + 2 * g * n) // gpus
        return _Numbers(_conv(width, _number(model, kernel)), h // gpus * d * n, own)

    return numbers


def _gated_delta_net(model: Config, gpus: int) -> _Numbers:
    keys = _number(model, "linear_num_key_heads") * _number(model, "linear_key_head_dim")
    v_heads, v_dim = (
        _number(model, "linear_num_value_heads"),
        _number(model, "linear_value_head_dim"),
    )
    dtype = model.get("mamba_ssm_dtype")
    return _Numbers(
        _conv((2 * keys + v_heads * v_dim) // gpus, _number(model, "linear_conv_kernel_dim")),
        v_heads // gpus * v_dim * _number(model, "linear_key_head_dim"),
        dtype if isinstance(dtype, str) else None,
    )


def _delta_attention(heads: int, dim: int, kernel: int, gpus: int) -> _Numbers:
    """Kimi delta attention: the recurrent state is kept in float32."""
    return _Numbers(_conv(3 * heads * dim // gpus, kernel), heads // gpus * dim * dim, "float32")


def _kimi_linear(model: Config, gpus: int) -> _Numbers:
    own = model.get("linear_attn_config")
    if not isinstance(own, Mapping):
        raise InputError("no linear_attn_config", remedy="is this the model's whole config.json?")
    kernel = _number(own, "short_conv_kernel_size")
    return _delta_attention(_number(own, "num_heads"), _number(own, "head_dim"), kernel, gpus)


def _bailing_v3(model: Config, gpus: int) -> _Numbers:
    heads, dim = _number(model, "num_attention_heads"), _number(model, "head_dim")
    return _delta_attention(heads, dim, _number(model, "short_conv_kernel_size"), gpus)


def _glm5_next(model: Config, gpus: int) -> _Numbers:
    heads, dim = _number(model, "linear_num_heads"), _number(model, "linear_head_dim")
    return _delta_attention(heads, dim, _number(model, "linear_conv_kernel_dim"), gpus)


def _short_conv(*width: str) -> _State:
    return lambda model, gpus: _Numbers(
        _conv(_number(model, *width) // gpus, _number(model, "conv_L_cache")), 0
    )


_D_MAMBA2 = _mamba2(
    "mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv"
)
_NEMOTRON = _mamba2(
    *("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel"), "float32"
)
_ZAMBA = _mamba2("n_mamba_heads", "mamba_headdim", "mamba_ngroups", "mamba_d_state", "mamba_d_conv")

# Architectures with state layers, and what a state holds (vLLM 0.32, the models' own files).
_STATES: dict[str, _State] = {
    "BailingMoeV3ForCausalLM": _bailing_v3,
    "BambaForCausalLM": _D_MAMBA2,
    "FalconH1ForCausalLM": _D_MAMBA2,
    "Glm5NextForCausalLM": _glm5_next,
    "GraniteMoeHybridForCausalLM": _D_MAMBA2,
    "JambaForCausalLM": _mamba1,
    "KimiLinearForCausalLM": _kimi_linear,
    "Lfm2ForCausalLM": _short_conv("conv_dim", "hidden_size"),
    "Lfm2MoeForCausalLM": _short_conv("hidden_size"),
    "NemotronHForCausalLM": _NEMOTRON,
    "OlmoHybridForCausalLM": _gated_delta_net,
    "Qwen3NextForCausalLM": _gated_delta_net,
    "Qwen3_5ForCausalLM": _gated_delta_net,
    "Qwen3_5ForConditionalGeneration": _gated_delta_net,
    "Qwen3_5MoeForCausalLM": _gated_delta_net,
    "Qwen3_5MoeForConditionalGeneration": _gated_delta_net,
    "Zamba2ForCausalLM": _ZAMBA,
}
_LEFT_VLLM = {"BambaForCausalLM": "0.22"}
# Architectures all of whose layers are attention, with or without windows.
_ATTENTION = frozenset(
    f"{name}ForCausalLM"
    for name in (
        *("Apertus", "Cohere", "Cohere2", "Dbrx", "Deepseek", "DeepseekV2", "DeepseekV3"),
        *("Ernie4_5", "Ernie4_5_Moe", "Exaone", "Exaone4", "GPTBigCode", "GPTJ", "GPTNeoX"),
        *("Gemma", "Gemma2", "Gemma3", "Glm", "Glm4", "Glm4Moe", "GptOss", "Granite", "GraniteMoe"),
        *("InternLM2", "InternLM3", "Llama", "Llama4", "MiniCPM", "MiniMaxM2", "Ministral3"),
        *(
            "Mistral",
            "Mixtral",
            "Nemotron",
            "OPT",
            "Olmo",
            "Olmo2",
            "Olmo3",
            "Olmoe",
            "Phi",
            "Phi3",
        ),
        *("PhiMoE", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe", "StableLm", "Starcoder2"),
    )
) | {
    *("GPT2LMHeadModel", "Gemma3ForConditionalGeneration", "Llama4ForConditionalGeneration"),
    *("Mistral3ForConditionalGeneration", "Qwen2VLForConditionalGeneration"),
    *("Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration"),
}
# Their layers take turns, also where the config does not list them.
_MIXED_WINDOWS = frozenset(
    {"Cohere2ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"}
    | {"Gemma3ForConditionalGeneration", "Exaone4ForCausalLM", "Olmo3ForCausalLM"}
)
_FULL_KINDS = frozenset({"full_attention", "attention"})
_ATTENTION_KINDS = _FULL_KINDS | {"sliding_attention", "chunked_attention", "*"}


def _layer_kinds(model: Config) -> frozenset[str]:
    """Kinds of layers that keep something; empty where the config does not list them."""
    for name in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        kinds = model.get(name)
        if isinstance(kinds, (list, str)) and kinds:
            return frozenset(map(str, kinds)) - {"moe", "mlp", "-", "E"}
    return frozenset()


def _has_states(name: str | None, model: Config, kinds: frozenset[str]) -> bool:
    """Whether some layer is no attention. Granite 4 micro is built for such layers and has none; of an
    architecture that is not known the names in its config tell."""
    if kinds or name in _ATTENTION:
        return bool(kinds - _ATTENTION_KINDS)
    if name in _STATES:
        return True
    words = ("mamba", "ssm_", "linear_attn", "linear_num", "conv_L_cache", "conv_kernel")
    return any(word in name for name in model for word in words)


def _window(model: Config, kinds: frozenset[str]) -> int | None:
    """Tokens of the layers' window; None where no layer has one."""
    window = model.get("sliding_window")
    if not window or not model.get("use_sliding_window", True):
        return None
    if kinds and "sliding_attention" not in kinds:
        return None
    return _number(model, "sliding_window")


def _unequal_pages(model: Config, kinds: frozenset[str]) -> bool:
    """Gemma 4 and others give their global layers heads of another size."""
    if "sliding_attention" not in kinds:
        return False
    other = (
        "global_head_dim",
        "num_global_key_value_heads",
        "swa_head_dim",
        "swa_num_key_value_heads",
    )
    return any(model.get(name) is not None for name in other)


def _placed(path: Path, read: Callable[[Config], T]) -> T:
    file = config_file(path)
    try:
        return read(read_config(path))
    except InputError as error:
        raise InputError(error.what, where=file, remedy=error.remedy) from error


def _text_model(config: Config) -> Config:
    """The language model's own part of a config that has several."""
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, Mapping):
            return part
    return config


def _architecture(config: Config) -> str | None:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _dtype_name(config: Config) -> str | None:
    name = config.get("dtype", config.get("torch_dtype"))
    return name if isinstance(name, str) else None


def _dtype_bytes(name: str | None, option: str, whose: str) -> int:
    if name is None or name.removeprefix("torch.") not in _DTYPE_BYTES:
        raise InputError(
            f"the type of the {whose}'s numbers is {'not given' if name is None else repr(name)}",
            remedy=f"{option}, one of {', '.join(_DTYPE_BYTES)}",
        )
    return _DTYPE_BYTES[name.removeprefix("torch.")]


def _number(config: Config, *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
    raise InputError(f"no {names[0]} above 0", remedy="is this a language model's config.json?")
