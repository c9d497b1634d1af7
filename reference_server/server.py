"""The server process: bind, load in the background, serve, drain on SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import load_tokenizer
from reference_server.api import make_app
from reference_server.engine import Engine, EngineSettings
from reference_server.keys import Keys
from reference_server.listening import DRAIN_S, bind, end_with, http_config, url_of
from reference_server.service import DRAINING, READY, Service
from reference_server.tiers.secret import lasting_secret


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`model` None: the default SmolLM2. `port` 0: any free one. `keys` are never printed.

    drain_s: how long SIGTERM lets running and waiting requests go on; then they end as 503.
    """

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: str | None = None
    device: str = "auto"
    threads: int = 1
    exit_with_parent: bool = False
    drain_s: float = DRAIN_S
    keys: Keys = field(default_factory=Keys)
    append_only: str = "off"
    engine: EngineSettings = field(default_factory=EngineSettings)


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT. Prints `loadkit serve: ready on URL` once on stdout.

    InputError for an address that cannot be bound or a model that cannot be loaded. The port
    answers 503 while the model loads.
    """
    if settings.exit_with_parent:
        end_with(os.getppid())
    listener = bind(settings.host, settings.port)
    service = Service(_served_name(settings), settings.keys)
    if settings.engine.disk_file is not None:
        service.secret = lasting_secret(settings.engine.disk_file)
    server = _Server(service, settings)
    loading = _Loading(settings, service, server, url_of(listener))
    loading.start()
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after its drain
    server.run(sockets=[listener])
    if service.engine is not None:
        service.engine.stop()
    if loading.error is not None:
        raise loading.error


class _Server(uvicorn.Server):
    """uvicorn that tells the service when the drain begins, and the engine when it is over."""

    def __init__(self, service: Service, settings: ServerSettings):
        app = make_app(service, settings.host, settings.append_only)
        super().__init__(http_config(app, settings.drain_s, lifespan="off"))
        self._service, self._drain_s = service, settings.drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.status != DRAINING:
            over = threading.Timer(self._drain_s, self._end_requests)
            over.daemon = True
            over.start()
        self._service.status = DRAINING
        super().handle_exit(sig, frame)

    def _end_requests(self) -> None:
        if self._service.engine is not None:
            self._service.engine.stop()


class _Loading(threading.Thread):
    """Loads the model beside the event loop; a failure ends the server and is kept in `error`."""

    def __init__(
        self, settings: ServerSettings, service: Service, server: uvicorn.Server, url: str
    ):
        super().__init__(name="load", daemon=True)
        self.settings, self.service, self.server, self.url = settings, service, server, url
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            load(self.settings, self.service)
        except BaseException as error:  # the thread's edge: `serve` raises it again
            self.error = error
            self.server.should_exit = True
            return
        if self.service.status == READY:
            print(f"loadkit serve: ready on {self.url}", flush=True)


def load(settings: ServerSettings, service: Service) -> None:
    """Load weights and tokenizer, allocate the pool, start the engine."""
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch
    from transformers.utils import logging

    from reference_server.model_runner import TransformersRunner
    from reference_server.tiers.build import make_tiers, model_fingerprint
    from reference_server.weights import load_model, pick_device, prepare_default_model

    pick_device(settings.device)  # a wrong one is told before anything is loaded
    torch.set_num_threads(settings.threads)
    logging.disable_progress_bar()
    path = settings.model or str(prepare_default_model())
    tokenizer = load_tokenizer(path)
    model = load_model(path, settings.device)
    _require_same_vocabulary(model, tokenizer.hf, path)
    made = settings.engine
    fingerprint = model_fingerprint(model) if made.disk_blocks else b""
    num_pages = made.num_blocks + made.max_num_seqs + 1
    runner = TransformersRunner(model, num_pages=num_pages, block_size=made.block_size)
    lower = make_tiers(
        runner.pages, made.host_blocks, made.disk_blocks, made.disk_file, fingerprint
    )
    engine = Engine(runner, made, service.metrics, lower)
    gc.freeze()  # else the collector walks through all of torch now and then: 0.2 s a time
    engine.start()
    service.install(engine, tokenizer, _eos_ids(model, tokenizer.hf))


def _require_same_vocabulary(model: Any, tokenizer: Any, path: str) -> None:
    """A tokenizer with ids that the model has no embedding for would fail request by request."""
    if len(tokenizer) > model.config.get_text_config().vocab_size:
        raise InputError("the tokenizer has more tokens than the model", where=path)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """End-of-reply tokens: the generation config's, and the tokenizer's."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def _served_name(settings: ServerSettings) -> str:
    if settings.served_model_name:
        return settings.served_model_name
    return Path(settings.model).name if settings.model else "SmolLM2-135M-Instruct"
