"""`loadkit serve`: the reference server. Imports torch and the server only when it is run."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from loadkit.core.errors import InputError

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "starlette", "uvicorn")
API_KEY_VARIABLE, ADMIN_KEY_VARIABLE = "LOADKIT_API_KEY", "LOADKIT_ADMIN_KEY"

# The router has them itself; see reference_server.router.processes for the replicas' own.
ROUTER_OPTIONS = frozenset(
    {"host", "port", "replicas", "routing", "append_only", "exit_with_parent"}
)


def serve(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Folder or hub name; default: {DEFAULT_MODEL}."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes a free port.")
    ] = 8000,
    block_size: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens in a block.")] = 16,
    num_blocks: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Blocks the prefix cache holds [default: 2048]."),
    ] = None,
    kv_cache_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The same in tokens, rounded down to blocks."),
    ] = None,
    max_batch_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens a step computes.")
    ] = 512,
    max_num_seqs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests computed at once.")
    ] = 16,
    max_queue_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Prompt tokens that may wait; above it: 429.")
    ] = 262_144,
    max_queue_requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests that may wait; above it: 429.")
    ] = 1024,
    policy: Annotated[
        str,
        typer.Option(metavar="NAME", help="Eviction: lru, lfu, lfu-plain, slru, gdsf, diversity."),
    ] = "lru",
    host_blocks: Annotated[
        int, typer.Option(metavar="N", min=0, help="Evicted blocks kept in host memory.")
    ] = 0,
    disk_blocks: Annotated[
        int, typer.Option(metavar="N", min=0, help="Blocks kept on disk after that.")
    ] = 0,
    disk_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where; it outlives the server.")
    ] = None,
    draft_tokens: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Guess up to N tokens a step from replies in the cache. Leave it off while replay "
            "is measured: repeated replies get faster than production's.",
        ),
    ] = 0,
    tenant_quota_blocks: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most cache blocks of one tenant.")
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="CPU threads of the model.")] = 1,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")] = "auto",
    served_model_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the API.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keys of which clients must send one, a line each, every key a tenant of its own; "
            f"or set {API_KEY_VARIABLE} to one key.",
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the operator's key, for metrics, events, logs and resets; or set "
            f"{ADMIN_KEY_VARIABLE}. Without it a single client key is the operator's, too.",
        ),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(
            metavar="S", min=0, max=3600, help="SIGTERM lets requests go on for S seconds."
        ),
    ] = 30,
    exit_with_parent: Annotated[
        bool,
        typer.Option("--exit-with-parent", help="End when the process that started this one ends."),
    ] = False,
    append_only: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="Conversations whose history was rewritten: off, observe (counted) or enforce (409).",
        ),
    ] = "off",
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Engine processes behind a router.")
    ] = 1,
    routing: Annotated[
        str, typer.Option(metavar="NAME", help="Of replicas: prefix-aware, sticky or random.")
    ] = "prefix-aware",
) -> None:
    """Serve an OpenAI-compatible API that reports why each cached token hit.

    A client names its conversation in the header x-session-id, or in the body's
    metadata.session_id; a request that names none is a session of its own, so its hits on its own
    earlier turns count as shared.
    """
    from loadkit.core.tokenizer import check_folder

    _require_packages()
    if model is not None:
        check_folder(model)
    keys = import_module("reference_server.keys")
    known = keys.Keys(_read_keys(api_key_file, API_KEY_VARIABLE), _admin_key(admin_key_file))
    if replicas > 1:
        router = import_module("reference_server.router.serve")
        behind = router.RouterSettings(
            options=[_replica_options(context, index) for index in range(replicas)],
            routing=routing,
            host=host,
            port=port,
            append_only=append_only,
            keys=known,
            exit_with_parent=exit_with_parent,
            drain_s=drain_seconds,
        )
        router.serve(behind)
        return
    print(f"loadkit serve: loading {model or DEFAULT_MODEL}", file=sys.stderr, flush=True)
    engine = import_module("reference_server.engine")  # by name: loadkit must not depend on torch
    server = import_module("reference_server.server")
    settings = server.ServerSettings(
        model=model,
        host=host,
        port=port,
        served_model_name=served_model_name,
        device=device,
        threads=threads,
        exit_with_parent=exit_with_parent,
        drain_s=drain_seconds,
        append_only=append_only,
        keys=known,
        engine=engine.EngineSettings(
            block_size=block_size,
            num_blocks=_pool_blocks(num_blocks, kv_cache_tokens, block_size),
            max_batch_tokens=max_batch_tokens,
            max_num_seqs=max_num_seqs,
            max_queue_tokens=max_queue_tokens,
            max_queue_requests=max_queue_requests,
            policy=policy,
            host_blocks=host_blocks,
            disk_blocks=disk_blocks,
            disk_file=disk_file,
            draft_tokens=draft_tokens,
            tenant_quota_blocks=tenant_quota_blocks,
        ),
    )
    server.serve(settings)


def _replica_options(context: typer.Context, index: int) -> list[str]:
    """What was given on the command line, for one replica; each has a disk file of its own."""
    options: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        source = context.get_parameter_source(name)
        if name in ROUTER_OPTIONS or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        value = f"{value}.{index}" if name == "disk_file" else value
        options += [param.opts[0]] if value is True else [param.opts[0], str(value)]
    return options


def _require_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the reference server needs {', '.join(missing)}",
            where="loadkit serve",
            remedy="pip install 'loadkit-llm[server]'",
        )


def _pool_blocks(num_blocks: int | None, tokens: int | None, block_size: int) -> int:
    if num_blocks is not None and tokens is not None:
        raise InputError("give only one of them", where="--num-blocks, --kv-cache-tokens")
    if tokens is None:
        return num_blocks or 2048
    if tokens < block_size:
        raise InputError("is less than one block", where="--kv-cache-tokens")
    return tokens // block_size


def _admin_key(path: Path | None) -> str | None:
    keys = _read_keys(path, ADMIN_KEY_VARIABLE)
    if len(keys) > 1:
        raise InputError("there is one admin key, the file has more lines", where=path)
    return keys[0] if keys else None


def _read_keys(path: Path | None, variable: str) -> tuple[str, ...]:
    """The keys in the file, else the one in the environment; none: the server asks for none."""
    if path is None:
        lines, where = [os.environ.get(variable, "")], variable
    else:
        lines, where = _lines(path), str(path)
    keys = tuple(line.strip() for line in lines if line.strip())
    if path is not None and not keys:
        raise InputError("the file is empty", where=path)
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise InputError(
            "a key has characters that no HTTP header carries",
            where=where,
            remedy="use printable ASCII without spaces",
        )
    return keys


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the key: {error}", where=path) from error
