"""A tokenizer for code: trained on a stream of files, checked when loaded, measured and compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from course_utils.data.encoding import Encoder

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
UNKNOWN = "<|unk|>"


def batch_iterator(
    dataset: Iterable[Mapping[str, Any]], batch_size: int = 100, limit: int | None = None, column: str = "content"
) -> Iterator[list[str]]:
    """Yield lists of at most `batch_size` texts from a data set or a stream, `limit` texts in all.

    A stream shorter than `limit` ends the iteration; the tutorial's version fails there, because a StopIteration inside
    a generator is an error. Raises ValueError when the column is missing.
    """
    if batch_size < 1 or (limit is not None and limit < 0):
        raise ValueError(f"batch_size must be at least 1 and limit at least 0, not {batch_size} and {limit}.")
    check_column(dataset, column)
    # Selecting forgets the place of a stream at which load_state_dict has put it; its rows do not.
    if hasattr(dataset, "select_columns") and not getattr(dataset, "_starting_state_dict", None):
        texts_only = dataset.select_columns([column])
        if hasattr(dataset, "epoch"):
            texts_only.set_epoch(dataset.epoch)  # selecting forgets it
        batches = (list(batch[column]) for batch in texts_only.iter(batch_size))
    else:
        rows = iter(dataset)
        batches = iter(lambda: [row[column] for row in islice(rows, batch_size)], [])
    left = limit
    while left != 0 and (texts := next(batches, [])[:left]):
        left = None if left is None else left - len(texts)
        yield texts


def check_column(dataset: Any, column: str) -> None:
    """Raise ValueError if it is known that the data has no such column."""
    names = getattr(dataset, "column_names", None)
    if names is not None and column not in names:
        raise ValueError(f"The data has no column {column!r}, only {', '.join(names)}. Say which one holds the text.")


def _as_list(texts: Any) -> Any:
    if isinstance(texts, str):
        raise ValueError(f"got the one text {texts[:40]!r}, whose letters would be read one by one; put it into a list")
    return texts


def base_tokenizer() -> PreTrainedTokenizerFast:
    """Return an untrained tokenizer of GPT-2's kind: its way to split, the 256 bytes, `<|endoftext|>` at both ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the bytes of the text: nothing is unknown, and every text is long."""
    return _with_padding(base_tokenizer())


def train_code_tokenizer(
    texts_iterator: Iterable[list[str]], vocab_size: int, length: int | None = None
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a padding token of its own; the same texts give the same tokenizer.

    `texts_iterator` yields lists of texts (see `batch_iterator`); `length`, their number, is for the progress bar.
    Raises ValueError when the vocabulary has no room beyond the bytes, when there was nothing to read, or for one text.
    """
    smallest = 256 + 2  # the bytes, the end of text and the padding
    if vocab_size <= smallest:
        raise ValueError(f"vocab_size is {vocab_size}; it must exceed {smallest}: 256 bytes and 2 control tokens.")
    options = {"length": length, "new_special_tokens": [PADDING], "show_progress": length is not None}
    tokenizer = base_tokenizer().train_new_from_iterator(_as_list(texts_iterator), vocab_size, **options)
    if len(tokenizer) == smallest:
        raise ValueError("The texts held nothing to learn from. Were they empty, or a generator that was read before?")
    return _with_padding(tokenizer)


def word_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of whole words and punctuation: the `vocab_size` most frequent, everything else `<|unk|>`."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [END_OF_TEXT, PADDING, UNKNOWN]
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_as_list(texts), trainer=trainer)
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": UNKNOWN}
    return _with_padding(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names))


def _with_padding(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"pad_token": PADDING})
    return tokenizer


def load_tokenizer(location: Any) -> Any:
    """Load a tokenizer from a folder or a Hub id, and check that a causal language model can be trained with it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(location))
    except Exception as error:  # a damaged file makes the library raise almost anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(
            f"There is no tokenizer at {str(location)!r} that can be read. Give a folder written by "
            "tokenizer.save_pretrained (notebook 02 makes one) or the id of a tokenizer on the Hub. The library said: "
            f"{reason}"
        ) from error
    return check_tokenizer(tokenizer)


def check_tokenizer(tokenizer: Any, *, padding_may_end_text: bool = False) -> Any:
    """Return the tokenizer, or raise ValueError if training with it would go wrong silently.

    Refused: an empty vocabulary (transformers 5 makes one of a folder with a model but no tokenizer files); no
    end-of-text token; padding with the end-of-text token, unless allowed, as the collator hides padding from the loss.
    """
    if not tokenizer("x = 1", add_special_tokens=False)["input_ids"]:
        raise ValueError(
            "The tokenizer has an empty vocabulary: it turns every text into []. Its folder probably holds a model "
            "without tokenizer files; save both there (tokenizer.save_pretrained) or load the tokenizer from elsewhere."
        )
    if end_of_text_id(tokenizer) == tokenizer.pad_token_id and not padding_may_end_text:
        raise ValueError(
            f"The padding token is the end-of-text token {tokenizer.eos_token!r}: the loss ignores both, so the model "
            "never learns to stop. Give padding a token of its own: "
            f"tokenizer.add_special_tokens({{'pad_token': '{PADDING}'}})."
        )
    return tokenizer


def end_of_text_id(tokenizer: Any) -> int:
    """Return the id of the end-of-text token; ValueError if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "The tokenizer has no end-of-text token, so documents cannot be told apart. "
            f"Add one: tokenizer.add_special_tokens({{'eos_token': '{END_OF_TEXT}'}})."
        )
    return tokenizer.eos_token_id


def single_token_ids(
    tokenizer: Any, words: Iterable[str], *, leading_space: bool = False
) -> tuple[dict[str, int], list[str]]:
    """Return word → id for the words that are one token, and the list of those that are not.

    With `leading_space=True` every word is also tried with a space before it, as it stands in the middle of a line.
    """
    tried = [form for word in _as_list(words) for form in ((word, f" {word}") if leading_space else (word,))]
    ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in tried}
    return {word: i[0] for word, i in ids.items() if len(i) == 1}, [word for word, i in ids.items() if len(i) != 1]


def characters_per_token(tokenizer: Any, texts: Iterable[str]) -> float:
    """Return how many characters one token stands for, over all texts; ValueError if there are none.

    `texts` may be a stream: `(row["content"] for row in stream.take(500))`.
    """
    encoder, characters, tokens = Encoder(tokenizer), 0, 0
    for text in _as_list(texts):
        characters += len(text)
        tokens += len(encoder.encode_batch([text])[0])
    if tokens == 0:
        raise ValueError("There is no text to measure. Was the stream empty, or a generator that was read before?")
    return characters / tokens


def compare_tokenizers(tokenizers: Mapping[str, Any], texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return one row per tokenizer: what the same texts become under each of them.

    Columns: tokenizer, vocabulary (entries), vocabulary_used (share of them seen here), tokens_per_document,
    characters_per_token, unknown (share of tokens), lossless (decoding gives back every text). ValueError without text.
    """
    texts = list(_as_list(texts))
    rows = []
    for name, tokenizer in tokenizers.items():
        ids = [i.tolist() for i in Encoder(tokenizer).encode_batch(texts)]
        tokens = sum(map(len, ids))
        if tokens == 0:
            raise ValueError("There is no text to compare on. Give at least one document that is not empty.")
        unknown = sum(i.count(tokenizer.unk_token_id) for i in ids) if tokenizer.unk_token_id is not None else 0
        decoded = (tokenizer.decode(i, clean_up_tokenization_spaces=False) for i in ids)
        rows.append(
            {
                "tokenizer": name,
                "vocabulary": len(tokenizer),
                "vocabulary_used": len(set().union(*ids)) / len(tokenizer),
                "tokens_per_document": tokens / len(texts),
                "characters_per_token": sum(map(len, texts)) / tokens,
                "unknown": unknown / tokens,
                "lossless": all(map(str.__eq__, decoded, texts)),
            }
        )
    return rows
