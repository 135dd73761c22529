"""A tokenizer for code: trained on a stream of files, checked when loaded, and measured."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from course_utils.data.encoding import Encoder

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
UNKNOWN = "<|unk|>"


def batch_iterator(dataset: Iterable[dict], batch_size: int = 100, limit: int | None = None) -> Iterator[list[str]]:
    """Yield lists of at most `batch_size` contents of a data set or a stream, `limit` in all.

    A shorter stream ends the iteration; the tutorial's version fails, as a StopIteration in a generator is an error.
    """
    rows = islice(iter(dataset), limit)  # `dataset.iter` forgets where a resumed stream stands
    while texts := [row["content"] for row in islice(rows, batch_size)]:
        yield texts


def base_tokenizer() -> PreTrainedTokenizerFast:
    """Return an untrained tokenizer of GPT-2's kind: its way to split, the 256 bytes, `<|endoftext|>` at both ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def train_code_tokenizer(texts_iterator: Iterable[list[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a padding token of its own; the same texts give the same tokenizer.

    `texts_iterator` yields lists of texts (see `batch_iterator`). Raises ValueError if no token is more than a byte.
    """
    options = {"new_special_tokens": [PADDING], "show_progress": False}
    tokenizer = base_tokenizer().train_new_from_iterator(texts_iterator, vocab_size, **options)
    if len(tokenizer) <= 256 + 2:  # the bytes, the end of text and the padding
        raise ValueError(
            f"Nothing was learned beyond the 256 bytes and 2 control tokens. Is the vocabulary of {vocab_size} too "
            "small, were the texts empty, or a generator that was read before?"
        )
    tokenizer.add_special_tokens({"pad_token": PADDING})
    return tokenizer


def word_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of whole words and punctuation: the `vocab_size` most frequent, everything else `<|unk|>`."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [END_OF_TEXT, PADDING, UNKNOWN]
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer=trainer)
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": UNKNOWN, "pad_token": PADDING}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def load_tokenizer(location: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or a Hub id, and check that a causal language model can be trained with it."""
    return check_tokenizer(AutoTokenizer.from_pretrained(str(location)))


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer, or raise ValueError if training with it would silently go wrong.

    Refused: an empty vocabulary (transformers 5 makes one of a folder with a model but no tokenizer files); no
    end-of-text token; padding with the end-of-text token, as the collator hides padding from the loss.
    """
    if not tokenizer("x = 1", add_special_tokens=False)["input_ids"]:
        raise ValueError(
            "The tokenizer has an empty vocabulary; its folder probably holds a model without tokenizer files. Save "
            "them there, too: tokenizer.save_pretrained(folder)."
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer has no end-of-text token. Set one: tokenizer.eos_token = {END_OF_TEXT!r}.")
    if tokenizer.eos_token_id == tokenizer.pad_token_id:
        raise ValueError(
            f"The padding token is the end-of-text token {tokenizer.eos_token!r}: the loss ignores both, so the model "
            f"never learns to stop. Add one for padding: tokenizer.add_special_tokens({{'pad_token': {PADDING!r}}})."
        )
    return tokenizer


def characters_per_token(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """Return how many characters one token stands for, over all texts; they may come from a stream (row C3)."""
    encoder = Encoder(tokenizer)
    counts = [(len(text), len(encoder.encode_batch([text])[0])) for text in texts]
    return sum(characters for characters, _ in counts) / sum(tokens for _, tokens in counts)
