"""Whether one tenant can tell by the clock what another one sent: a live server, and its control.

    PYTHONPATH=tests/support:tests/unit/server python benchmarks/tenant_attack.py [--trials N]

Before each trial a coin decides whether the victim has sent the attacker's candidate or another
prompt of the same length. Then the attacker sends the candidate and looks at everything: time to
first token, decode speed (drafting is on), each number of usage, headers; in a second attack at how
long a text takes to be tokenised. The control is the same under one key. Printed for each measure: AUC,
the interval in which 99% of coin tosses fall, and the share of 10,000 dealings of the labels that are
as far from 0.5 (p). `all` is one measure made of all: a direction and a weight for each are taken from
one half of the trials and judged on the other. Last, the flooder: a victim's hit rate alone, under a
flood, and under a flood with quotas, in virtual time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from roc import auc, permuted_aucs
from served import serving
from test_tenant_quotas import QUOTA, victim_hit_rate
from tiny_model import make_tokenizer, write_tiny_model

from loadkit.core.tokenizer import Tokenizer
from reference_server.service import forget_words

VICTIM, ATTACKER = "victims-key", "attackers-key"
PROMPT_TOKENS, WORDS, WORD_CHARS = 500, 40, 200
Row = dict[str, float]
Attack = Callable[[httpx.Client, random.Random, str, bool], Row]


def completion(client: httpx.Client, rng: random.Random, attacker: str, is_sent: bool) -> Row:
    """Time to first token, decode time, and what the answer says."""
    candidate, other = ([rng.randrange(2, 300) for _ in range(PROMPT_TOKENS)] for _ in range(2))
    ask(client, VICTIM, candidate if is_sent else other)
    return ask(client, attacker, candidate)


def ask(client: httpx.Client, key: str, prompt: list[int]) -> Row:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    times, last = [], ""
    with client.stream("POST", "/v1/completions", json=body, headers=bearer(key)) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter() - began)
                last = line
        headers = float(sum(len(k) + len(v) for k, v in answer.headers.items()))
    usage = json.loads(last[6:])["usage"]
    numbers = usage["loadkit"] | usage["prompt_tokens_details"]
    found = {"ttft_s": times[0], "decode_s": times[-2] - times[0], "headers": headers}
    return found | {name: float(number) for name, number in numbers.items()}


def tokenizing(client: httpx.Client, rng: random.Random, attacker: str, is_sent: bool) -> Row:
    """How long /tokenize takes for a text of words that the victim has sent, or has not."""
    candidate, other = text_of(rng), text_of(rng)
    post_text(client, VICTIM, candidate if is_sent else other)
    return {"tokenize_s": post_text(client, attacker, candidate)}


def tokenizer_alone(remembers: bool) -> Attack:
    """The same without a server, whose tokenizer has no memory that a control could be made with."""
    tokenizer = Tokenizer(make_tokenizer(), "tiny")
    if not remembers:
        forget_words(tokenizer)

    def attack(client: httpx.Client, rng: random.Random, attacker: str, is_sent: bool) -> Row:
        candidate, other = text_of(rng), text_of(rng)
        tokenizer.encode(candidate if is_sent else other)
        began = time.perf_counter()
        tokenizer.encode("".join([candidate]))
        return {"encode_s": time.perf_counter() - began}

    return attack


def text_of(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=WORD_CHARS)) for _ in range(WORDS))


def post_text(client: httpx.Client, key: str, text: str) -> float:
    began = time.perf_counter()
    client.post("/tokenize", json={"prompt": text}, headers=bearer(key)).raise_for_status()
    return time.perf_counter() - began


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def trials(client: httpx.Client, attack: Attack, attacker: str, num: int, seed: int) -> None:
    """As many of each side, in an order dealt out by chance."""
    rng = random.Random(seed)
    coins = [False, True] * (num // 2)
    rng.shuffle(coins)
    rows = [attack(client, rng, attacker, coin) for coin in coins]
    names = [name for name in rows[0] if any(row[name] != rows[0][name] for row in rows)]
    same = sorted(set(rows[0]) - set(names))
    table = np.array([[row[name] for name in names] for row in rows])
    for column, name in enumerate(names):
        tell(name, table[:, column], np.array(coins))
    if len(names) > 1:
        half = num // 2
        tell("all", combined(table, np.array(coins), half), np.array(coins)[half:])
    if same:
        print(f"      equal in all {num} trials: {', '.join(same)}")


def combined(table: np.ndarray, coins: np.ndarray, half: int) -> np.ndarray:  # type: ignore[type-arg]
    """Fisher's direction with independent measures, from the first half; for the second half.
    Times are ranked first, as they have outliers."""
    ranks = table.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").astype(float)
    sent, not_sent = ranks[:half][coins[:half]], ranks[:half][~coins[:half]]
    spread = ranks[:half].var(axis=0) + 1e-9
    return ranks[half:] @ ((sent.mean(axis=0) - not_sent.mean(axis=0)) / spread)


def tell(name: str, values: np.ndarray, coins: np.ndarray) -> None:  # type: ignore[type-arg]
    found = auc(values[coins], values[~coins])
    chance = permuted_aucs(values[coins], values[~coins])
    low, high = np.quantile(chance, [0.005, 0.995])
    p = (np.abs(chance - 0.5) >= abs(found - 0.5) - 1e-12).mean()
    print(f"      {name:24} AUC {found:.3f}   chance {low:.3f} to {high:.3f}   p {p:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=900)
    num = parser.parse_args().trials
    os.environ.pop("LOADKIT_API_KEY", None)
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny")
        keys = Path(folder) / "keys"
        keys.write_text(f"{VICTIM}\n{ATTACKER}\n")
        options = ("--model", str(model), "--api-key-file", str(keys), "--draft-tokens", "4")
        with serving(*options) as served:
            client = httpx.Client(base_url=served.url, trust_env=False, timeout=60)
            for seed, (what, attack, attacker) in enumerate(
                (
                    ("completion, control: one key", completion, VICTIM),
                    ("completion, two keys", completion, ATTACKER),
                    ("tokenizer alone, control: it remembers", tokenizer_alone(True), ""),
                    ("tokenizer alone, as served", tokenizer_alone(False), ""),
                    ("/tokenize, two keys", tokenizing, ATTACKER),
                )
            ):
                print(f"  {what}; {num} trials, seed {seed}", flush=True)
                trials(client, attack, attacker, num, seed)
    alone, flooded, bounded = (
        victim_hit_rate(quota=quota, flood=flood)
        for quota, flood in ((None, False), (None, True), (QUOTA, True))
    )
    print(f"  victim's hit rate: alone {alone:.3f}, flooded {flooded:.3f} (control), "
          f"flooded with quotas {bounded:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
