"""Template tokens are measured, not assumed; words are one token each wherever they stand."""

import pytest
from secret_chats import CHATML, make_tokenizer

from loadkit import corpora
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.synthesize.chat_form import measure_form
from loadkit.synthesize.words import single_token_words

CORPUS = corpora.load("assistant-chat")
OWN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nPlease answer with care, the"
    " customer is waiting for a clear answer.<|im_end|>\n{% endif %}" + CHATML
)
# A template that shows history otherwise than it prompted for it, as some reasoning models do.
STRIPPING = CHATML.replace(
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}",
    "<|im_start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}!{% endif %}\n{{ m['content'] }}",
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"


def form_of(template: str) -> object:
    tokenizer = make_tokenizer(template)
    return measure_form(tokenizer, single_token_words(tokenizer, CORPUS))


def test_every_word_is_one_token_at_the_start_and_after_any_other(tokenizer: Tokenizer) -> None:
    words = single_token_words(tokenizer, CORPUS)
    assert len(words) > 300
    text = " ".join([*words, *reversed(words)])
    assert len(tokenizer.encode(text, add_special_tokens=False)) == 2 * len(words)


def test_a_tokenizer_of_single_bytes_is_refused(tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    fast = Fast(models.BPE(vocab=alphabet, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    single = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=fast), "bytes")
    with pytest.raises(InputError, match="--token-ids writes token ids"):
        single_token_words(single, CORPUS)


def test_the_chatml_template_is_measured(tokenizer: Tokenizer) -> None:
    words = single_token_words(tokenizer, CORPUS)
    form = measure_form(tokenizer, words)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    assert form.start == ()
    assert form.opening == count("<|im_start|>user\n")
    assert form.closing == count("<|im_end|>\n<|im_start|>assistant\n")
    assert form.between == count("<|im_end|>\n<|im_start|>user\n")


def test_a_system_message_of_one_word_keeps_the_templates_own_away() -> None:
    form = form_of(OWN_SYSTEM)
    assert [message["role"] for message in form.start] == ["system"]  # type: ignore[attr-defined]


def test_a_template_that_shows_history_otherwise_has_no_turns_that_extend_each_other() -> None:
    assert form_of(STRIPPING).between is None  # type: ignore[attr-defined]


def test_a_template_without_system_messages_is_measured_without_one() -> None:
    assert form_of(NO_SYSTEM + CHATML).start == ()  # type: ignore[attr-defined]


def test_a_template_that_repeats_messages_is_refused() -> None:
    with pytest.raises(InputError, match="moves or repeats the words"):
        form_of(CHATML + CHATML)
