"""`loadkit serve`: the reference server. Imports torch and the server only when it is run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from loadkit.cli.options import flag, grouped, option
from loadkit.core.errors import InputError

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "starlette", "uvicorn")

# The router has them itself; see reference_server.router.processes for the replicas' own.
ROUTER_OPTIONS = frozenset(
    {"host", "port", "replicas", "routing", "append_only", "exit_with_parent"}
)


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the server is, who may call it, when it ends: of one engine as of a router."""

    host: Annotated[str, option("Address to listen on.", "HOST")] = "127.0.0.1"
    port: Annotated[int, option("0 takes a free port.", "PORT", min=0, max=65535)] = 8000
    append_only: Annotated[
        str,
        option(
            "Conversations whose history was rewritten: off, observe (counted) or enforce (409).",
            "MODE",
        ),
    ] = "off"
    api_key_file: Annotated[
        Path | None,
        option(
            "Keys of which clients must send one, a line each, every key a tenant of its own; "
            "or set LOADKIT_API_KEY to one key.",
            "FILE",
        ),
    ] = None
    admin_key_file: Annotated[
        Path | None,
        option(
            "File with the operator's key, for metrics, events, logs and resets; or set "
            "LOADKIT_ADMIN_KEY. Without it a single client key is the operator's, too.",
            "FILE",
        ),
    ] = None
    drain_seconds: Annotated[
        float, option("SIGTERM lets requests go on for S seconds.", "S", min=0, max=3600)
    ] = 30
    exit_with_parent: Annotated[
        bool, flag("--exit-with-parent", "End when the process that started this one ends.")
    ] = False

    def settings(self) -> dict[str, Any]:
        """What ServerSettings and RouterSettings have in common. InputError for unfit keys."""
        keys = import_module("reference_server.keys")  # by name: loadkit must not depend on torch
        return {
            "host": self.host,
            "port": self.port,
            "append_only": self.append_only,
            "keys": keys.read_keys(self.api_key_file, self.admin_key_file),
            "exit_with_parent": self.exit_with_parent,
            "drain_s": self.drain_seconds,
        }


@dataclass(frozen=True, kw_only=True)
class Engine:
    """EngineSettings under their own names."""

    block_size: Annotated[int, option("Tokens in a block.", "N", min=1)] = 16
    max_batch_tokens: Annotated[int, option("Tokens a step computes.", "N", min=1)] = 512
    max_num_seqs: Annotated[int, option("Requests computed at once.", "N", min=1)] = 16
    max_queue_tokens: Annotated[
        int, option("Prompt tokens that may wait; above it: 429.", "N", min=1)
    ] = 262_144
    max_queue_requests: Annotated[
        int, option("Requests that may wait; above it: 429.", "N", min=1)
    ] = 1024
    policy: Annotated[
        str, option("Eviction: lru, lfu, lfu-plain, slru, gdsf, diversity.", "NAME")
    ] = "lru"
    host_blocks: Annotated[int, option("Evicted blocks kept in host memory.", "N", min=0)] = 0
    disk_blocks: Annotated[int, option("Blocks kept on disk after that.", "N", min=0)] = 0
    disk_file: Annotated[Path | None, option("Where; it outlives the server.", "FILE")] = None
    draft_tokens: Annotated[
        int,
        option(
            "Guess up to N tokens a step from replies in the cache. Leave it off while replay "
            "is measured: repeated replies get faster than production's.",
            "N",
            min=0,
        ),
    ] = 0
    tenant_quota_blocks: Annotated[
        int | None, option("Most cache blocks of one tenant.", "N", min=1)
    ] = None


@grouped
def serve(
    context: typer.Context,
    listening: Listening,
    engine: Engine,
    model: Annotated[
        str | None, option(f"Folder or hub name; default: {DEFAULT_MODEL}.", "NAME")
    ] = None,
    num_blocks: Annotated[
        int | None, option("Blocks the prefix cache holds [default: 2048].", "N", min=1)
    ] = None,
    kv_cache_tokens: Annotated[
        int | None, option("The same in tokens, rounded down to blocks.", "N", min=1)
    ] = None,
    threads: Annotated[int, option("CPU threads of the model.", "N", min=1)] = 1,
    device: Annotated[str, option("auto, cpu or cuda.", "DEVICE")] = "auto",
    served_model_name: Annotated[str | None, option("Name in the API.", "NAME")] = None,
    replicas: Annotated[int, option("Engine processes behind a router.", "N", min=1, max=64)] = 1,
    routing: Annotated[
        str, option("Of replicas: prefix-aware, sticky or random.", "NAME")
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
    common = listening.settings()
    if replicas > 1:
        router = import_module("reference_server.router.serve")
        options = [_replica_options(context, index) for index in range(replicas)]
        router.serve(router.RouterSettings(options=options, routing=routing, **common))
        return
    print(f"loadkit serve: loading {model or DEFAULT_MODEL}", file=sys.stderr, flush=True)
    server = import_module("reference_server.server")
    engines = import_module("reference_server.engine")
    pool = _pool_blocks(num_blocks, kv_cache_tokens, engine.block_size)
    settings = server.ServerSettings(
        model=model,
        served_model_name=served_model_name,
        device=device,
        threads=threads,
        engine=engines.EngineSettings(num_blocks=pool, **vars(engine)),
        **common,
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
