"""What the HTTP routes stand on: model, tokenizer and engine, and whether they are there yet."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loadkit.core.blocks import root_hash
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from reference_server.api_errors import ApiError
from reference_server.engine import Engine, EngineDead, QueueFull
from reference_server.generation import Generation
from reference_server.keys import Caller, Keys
from reference_server.metrics import Metrics
from reference_server.request import Request, SamplingParams
from reference_server.schema import ChatRequest, CompletionRequest, GenerationRequest, Message
from reference_server.token_texts import TokenTexts

LOADING, READY, DRAINING = "loading", "ready", "draining"
RETRY_AFTER_S = 1
MAX_SESSION_CHARS = 256
Result = TypeVar("Result")


@dataclass(slots=True)
class Service:
    """`keys`: who may call. `install` makes a loading service ready.

    secret: what tenants' salts are made with; a new one in every process, and told to nobody.
    """

    model_name: str
    keys: Keys = field(default_factory=Keys)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    status: str = LOADING
    tokenizer: Tokenizer | None = None
    engine: Engine | None = None
    eos_ids: frozenset[int] = frozenset()
    texts: TokenTexts | None = None
    fingerprint: str = ""
    max_prompt_chars: int = 0
    num_event_streams: int = 0
    metrics: Metrics = field(init=False)
    _tokenizing: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.model_name)
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")

    def install(self, engine: Engine, tokenizer: Tokenizer, eos_ids: frozenset[int]) -> None:
        forget_words(tokenizer)
        self.engine, self.tokenizer, self.eos_ids = engine, tokenizer, eos_ids
        self.fingerprint, self.texts = tokenizer.fingerprint, TokenTexts(tokenizer)
        longest = max(map(len, tokenizer.hf.get_vocab()))
        self.max_prompt_chars = engine.runner.max_model_len * longest
        self.metrics.watch(engine)
        if self.status == LOADING:
            self.status = READY

    # -- state

    @property
    def health(self) -> str:
        """ "ready", or why not."""
        return "engine_dead" if self.engine and self.engine.error else self.status

    def require_ready(self) -> tuple[Engine, Tokenizer]:
        health = self.health
        if health != READY or self.engine is None or self.tokenizer is None:
            raise unavailable(health)
        return self.engine, self.tokenizer

    # -- from a request body to a queued request

    async def submit(
        self, body: ChatRequest | CompletionRequest, session: str | None, caller: Caller
    ) -> Generation:
        """Tokenise, check and queue all choices. ApiError: 400, 404, 429 or 503."""
        arrival_s = time.monotonic()
        engine, tokenizer = self.require_ready()
        self.check_model(body.model)
        generation = Generation(tokenizer.decode, body.stop, body.n or 1)
        await self.off_loop(lambda: self._build(body, session, caller, generation))
        for request in generation.requests:
            request.arrival_s = arrival_s
        try:
            engine.submit(*generation.requests)
        except QueueFull as error:
            raise ApiError(
                429,
                "the queue is full: try again later",  # how full is about others' prompts
                code="queue_full",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from error
        except EngineDead as error:
            raise unavailable(self.health) from error
        self.metrics.queued(generation.requests)
        return generation

    async def off_loop(self, work: Callable[[], Result]) -> Result:
        """Run tokenising work on its own thread; one, since tokenizers are not re-entrant."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise ApiError(
                404,
                f"the model {name!r} is not served here, {self.model_name!r} is",
                code="model_not_found",
                param="model",
            )

    def encode(self, body: ChatRequest | CompletionRequest) -> list[int]:
        if isinstance(body, ChatRequest):
            return self.encode_chat(body.messages, body.tools)
        if isinstance(body.prompt, str):
            return self.encode_text(body.prompt, body.add_special_tokens)
        return self.check_ids(body.prompt, "prompt")

    def encode_chat(self, messages: list[Message], tools: list[Any] | None) -> list[int]:
        _, tokenizer = self.require_ready()
        try:
            text = tokenizer.render_chat([m.for_template() for m in messages], tools)
        except InputError as error:
            raise ApiError(400, error.what, code="invalid_messages", param="messages") from error
        return self.encode_text(text, add_special_tokens=False)

    def encode_text(self, text: str, add_special_tokens: bool) -> list[int]:
        """400 before any work for a text that cannot fit even in the vocabulary's longest tokens."""
        _, tokenizer = self.require_ready()
        if len(text) > self.max_prompt_chars:
            message = f"the prompt's {len(text)} characters are more than the model can take"
            raise ApiError(400, message, code="context_length_exceeded")
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def check_ids(self, ids: list[int], param: str) -> list[int]:
        engine, _ = self.require_ready()
        vocab_size = engine.runner.vocab_size
        if max(ids, default=0) >= vocab_size:
            message = f"{param}: token ids must be below {vocab_size}"
            raise ApiError(400, message, code="invalid_token_id", param=param)
        return ids

    def _build(
        self,
        body: ChatRequest | CompletionRequest,
        session: str | None,
        caller: Caller,
        generation: Generation,
    ) -> None:
        engine, _ = self.require_ready()
        tokens = self.encode(body)
        if not tokens:
            raise ApiError(400, "the prompt has no tokens", code="empty_prompt", param="prompt")
        max_tokens = self._max_tokens(body.wanted_tokens, len(tokens))
        tenant = self.tenant(caller.key)
        first = generation.choices[0]
        leader = Request(
            tokens=tokens,
            block_size=engine.settings.block_size,
            root=root_hash(self.model_name, _salt(body, tenant)),
            params=self._sampling(body, max_tokens),
            session=_session(body, session, tenant),
            observe=first.observe,
            on_finish=first.finish,
            tenant=bytes.fromhex(tenant) if self.keys.are_set else b"",
        )
        generation.attach(leader)

    def _max_tokens(self, wanted: int | None, num_prompt: int) -> int:
        """As asked, or all that fits. 400 if it can never fit the context or the pool."""
        engine, _ = self.require_ready()
        room = engine.max_new_tokens(num_prompt)
        if room < (wanted or 1):
            raise ApiError(
                400,
                f"at most {engine.max_new_tokens(0)} tokens fit; the request has {num_prompt} "
                f"prompt tokens and asks for {wanted or 'at least 1'} more",
                code="context_length_exceeded",
                param="max_tokens",
            )
        return wanted or room

    def _sampling(self, body: ChatRequest | CompletionRequest, max_tokens: int) -> SamplingParams:
        """OpenAI's defaults: temperature 1, top_p 1."""
        if body.min_tokens > max_tokens:
            message = f"min_tokens is above max_tokens ({max_tokens})"
            raise ApiError(400, message, code="invalid_value", param="min_tokens")
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            min_tokens=body.min_tokens,
            ignore_eos=body.ignore_eos,
            eos_ids=self.eos_ids,
            top_k=max(0, body.top_k or 0),
            stop_ids=frozenset(self.check_ids(body.stop_token_ids or [], "stop_token_ids")),
            num_logprobs=body.num_logprobs,
        )

    # -- isolation

    def tenant(self, key: str) -> str:
        """HMAC of an API key ('' without one) under this process's secret: whoever knows a key's
        digest still cannot name its isolation domain. 64 hex digits."""
        return hmac.new(self.secret, key.encode(), hashlib.sha256).hexdigest()


def _salt(body: GenerationRequest, tenant: str) -> str:
    """The isolation domain: the tenant's own, or the shared one that the request names."""
    if body.cache_salt is None:
        return f"tenant {tenant}"
    return f"named {body.cache_salt}"


def _session(body: GenerationRequest, header: str | None, tenant: str) -> str | None:
    """Session key, scoped by tenant. None: the request is its own session."""
    session = header or (body.metadata or {}).get("session_id")
    if not session:
        return None
    if len(session) > MAX_SESSION_CHARS:
        message = f"a session id has at most {MAX_SESSION_CHARS} characters"
        raise ApiError(400, message, code="invalid_value", param="session_id")
    return _digest(f"{tenant}\0{session}")


def forget_words(tokenizer: Tokenizer) -> None:
    """Of a fast tokenizer: it remembers the words that it has seen, whoever sent them, and is a
    fifth faster for a text of words that it knows: /tokenize would tell what others have sent. Its
    memory gains nothing else that was measured (benchmarks/tenant_attack.py)."""
    model = getattr(getattr(tokenizer.hf, "backend_tokenizer", None), "model", None)
    resize = getattr(model, "_resize_cache", None)
    if resize is not None:  # BPE and Unigram; others have no such memory
        resize(0)


def unavailable(health: str) -> ApiError:
    headers = {"Retry-After": "5"} if health == LOADING else None
    return ApiError(503, f"not serving: {health}", code=health, headers=headers)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
