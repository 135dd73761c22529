"""From logits to text: greedy, sampled (temperature, top-k, top-p) or by beam search, with any causal model."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange

from course_utils.data.sliding_windows import encode_text
from course_utils.models.gpt import GPTModel, KVCache


def text_to_token_ids(text: str, tokenizer: Any) -> Tensor:
    """Return the token ids of a text as a batch of one row, (1, T); from a Hugging Face or a tiktoken tokenizer."""
    return torch.tensor([encode_text(text, tokenizer)], dtype=torch.long)


def token_ids_to_text(ids: Tensor, tokenizer: Any) -> str:
    """Return the text of token ids (T,) or (1, T); raises `ValueError` for more than one row."""
    if ids.ndim > 2 or (ids.ndim == 2 and len(ids) != 1):
        raise ValueError(f"ids have the shape {tuple(ids.shape)}; decode one row at a time: for row in ids.")
    return tokenizer.decode(ids.flatten().tolist())


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Turn logits (B, V) into the probabilities (B, V) that the next token is drawn from.

    The logits are divided by `temperature` (0: all on the best token), then only the `top_k` best tokens stay, then of
    these the fewest whose probabilities reach `top_p`. Each row has its own limits; among equal tokens the one with
    the lower id is kept. Raises `ValueError` for values out of range.
    """
    _check_choice(temperature, top_k, top_p)
    vocabulary = logits.shape[-1]
    if top_k is not None and top_k > vocabulary:
        raise ValueError(f"top_k is {top_k}, but the vocabulary has {vocabulary} tokens; choose fewer.")
    logits = logits.float()
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), vocabulary).float()
    # The largest logit becomes 0 first: a tiny temperature then cannot make two infinities.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is None and top_p is None:
        return logits.softmax(-1)
    best, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V)
    best[..., vocabulary if top_k is None else top_k :] = -torch.inf
    probs = best.softmax(-1)
    if top_p is not None and top_p < 1:
        before = F.pad(probs.cumsum(-1)[..., :-1], (1, 0))  # what the better tokens have together
        probs = probs.masked_fill(before >= top_p, 0)
        probs /= probs.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter(-1, order, probs)


def generate_text(
    model: Callable[[Tensor], Any],
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
    *,
    top_p: float | None = None,
    num_beams: int = 1,
    generator: torch.Generator | int | None = None,
    use_cache: bool = True,
    show_progress: bool = False,
) -> Tensor:
    """Continue every row of `idx` (B, T) by up to `max_new_tokens` tokens; prompts and continuations, (B, T + new).

    `model` gives logits (B, T, V) for ids (B, T), or something with `.logits`; it sees the last `context_size` tokens.
    Temperature 0 takes the best token; otherwise it is drawn (`next_token_probabilities`), and the same `generator` or
    seed draws the same text. A row ends with `eos_id`, and is filled with it while others go on.

    With `num_beams` > 1 a beam search looks for the continuation with the highest mean log probability per new token
    (its end counted): sums alone would prefer short texts. A `GPTModel` keeps keys and values unless `use_cache` is
    False; in float32 the tokens are the same. Once the text is longer than `context_size`, all positions move with
    each token, so nothing kept is of use and the window is read anew. Raises `ValueError` for arguments out of range.
    """
    _check_choice(temperature, top_k, top_p)
    _check_request(model, idx, max_new_tokens, context_size)
    _check_tokens(model, top_k, eos_id)
    if num_beams < 1 or (num_beams > 1 and (temperature, top_k, top_p) != (0, None, None)):
        raise ValueError(
            f"num_beams is {num_beams}: use 1 or more; more than 1 goes with temperature 0 and without top_k and "
            "top_p, for nothing is drawn."
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        generator = torch.Generator().manual_seed(int(generator))  # on the CPU: the same text on every device
    read = _Reader(model, context_size, use_cache, idx.shape[1] + max_new_tokens)
    steps = trange(max_new_tokens, desc="tokens", disable=not show_progress)

    def choose(logits: Tensor) -> Tensor:
        if temperature == 0 and top_k is None:
            return logits.argmax(-1)
        probs = next_token_probabilities(logits, temperature, top_k, top_p)
        at = probs.device if generator is None else generator.device
        return torch.multinomial(probs.to(at), 1, generator=generator)[:, 0].to(idx.device)

    with eval_mode(model), torch.inference_mode():  # faster than no_grad
        if num_beams > 1:
            texts = _beam_search(read, idx, steps, num_beams, eos_id)
        else:
            texts = _one_by_one(read, idx, steps, choose, eos_id)
    return texts.clone()  # an ordinary tensor, which may be trained on


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Turn dropout off for a while; afterwards every part is in the mode that it was in. A plain function has none."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


class _Reader:
    """Logits (B, V) for the token after each text, with or without a cache of the tokens read before."""

    def __init__(self, model: Callable, context_size: int, use_cache: bool, longest: int) -> None:
        self.model, self.context_size, self.cache = model, context_size, None
        if use_cache and isinstance(model, GPTModel):
            self.cache = KVCache(model.cfg, min(context_size, longest))

    def __call__(self, texts: Tensor) -> Tensor:
        if self.cache is not None and texts.shape[1] <= self.context_size:
            logits = self.model(texts[:, self.cache.length :], self.cache)
        else:
            logits = self.model(texts[:, -self.context_size :])
        return getattr(logits, "logits", logits)[:, -1].float()

    def reorder(self, rows: Tensor) -> None:
        if self.cache is not None:
            self.cache.reorder(rows)


def _one_by_one(read: _Reader, idx: Tensor, steps: Any, choose: Callable, eos_id: int | None) -> Tensor:
    ended = torch.zeros(len(idx), dtype=torch.bool, device=idx.device)
    for _ in steps:
        token = choose(read(idx))  # (B,)
        if eos_id is not None:
            token = token.masked_fill(ended, eos_id)
            ended |= token == eos_id
        idx = torch.cat([idx, token[:, None]], dim=1)
        if eos_id is not None and ended.all():
            break
    return idx


def _beam_search(read: _Reader, idx: Tensor, steps: Any, num_beams: int, eos_id: int | None) -> Tensor:
    """Keep the `num_beams` likeliest unfinished texts of each row, and the best finished one."""
    rows, width, longest = len(idx), 1, len(steps)  # one text per row at first, then up to num_beams
    row = torch.arange(rows, device=idx.device)
    texts, sums = idx, torch.zeros(rows, 1, device=idx.device)  # (B * K, T), (B, K)
    fill = 0 if eos_id is None else eos_id
    finished = F.pad(idx, (0, longest), value=fill)  # (B, longest text)
    best = torch.full((rows,), -torch.inf, device=idx.device)  # mean log probability of the finished texts
    lengths = torch.zeros_like(row)  # tokens they have added

    def finish(means: Tensor, beam: Tensor | int, length: int) -> None:
        """Take over those texts (one beam of each row) that are better than the row's finished one."""
        better = means > best
        chosen = F.pad(texts[row * width + beam], (0, finished.shape[1] - texts.shape[1]), value=fill)
        finished[better], best[better], lengths[better] = chosen[better], means[better], length

    step = 0
    for step, _ in enumerate(steps, 1):
        totals = sums[:, :, None] + read(texts).log_softmax(-1).view(rows, width, -1)  # (B, K, V)
        if eos_id is not None:
            ended, beam = totals[:, :, eos_id].max(1)
            finish(ended / step, beam, step)
            totals[:, :, eos_id] = -torch.inf
        vocabulary = totals.shape[2]
        sums, choice = totals.flatten(1).topk(min(num_beams, width * vocabulary))  # (B, K), best first
        parents = (row[:, None] * width + choice // vocabulary).flatten()  # (B * K,)
        texts = torch.cat([texts[parents], (choice % vocabulary).view(-1, 1)], dim=1)
        read.reorder(parents)
        width = sums.shape[1]
        # Sums only fall, so this is the best mean that an unfinished text can still reach.
        if (sums[:, 0] / longest <= best).all():
            break
    finish(sums[:, 0] / max(1, step), 0, step)
    return finished[:, : idx.shape[1] + int(lengths.max())]


def _check_choice(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it must be 0 (take the best token) or more.")
    if top_k is not None and (top_k < 1 or top_k != int(top_k)):
        raise ValueError(f"top_k is {top_k}; keep at least 1 token, a whole number, or give None to keep all.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be more than 0 and at most 1 (None or 1 keeps all tokens).")


def _check_request(model: Any, idx: Tensor, max_new_tokens: int, context_size: int) -> None:
    if idx.ndim != 2 or idx.numel() == 0 or idx.is_floating_point():
        raise ValueError(
            f"the prompt has the shape {tuple(idx.shape)} and type {idx.dtype}; give whole numbers (B, T), "
            "at least one token per row, for example from text_to_token_ids."
        )
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and context_size {context_size}; use at least 0 and at least 1."
        )
    if isinstance(model, GPTModel) and context_size > model.cfg["context_length"]:
        raise ValueError(
            f"context_size is {context_size}, but the model's context is {model.cfg['context_length']}; "
            'use model.cfg["context_length"].'
        )


def _check_tokens(model: Any, top_k: int | None, eos_id: int | None) -> None:
    config = getattr(model, "config", None)  # a model of the library has one; a plain function tells nothing
    vocabulary = model.cfg["vocab_size"] if isinstance(model, GPTModel) else getattr(config, "vocab_size", sys.maxsize)
    if top_k is not None and top_k > vocabulary:
        raise ValueError(f"top_k is {top_k}, but the vocabulary has {vocabulary} tokens; choose fewer.")
    if eos_id is not None and not 0 <= eos_id < vocabulary:
        raise ValueError(f"eos_id is {eos_id}; it must be a token of the vocabulary, from 0 on, or None for no end.")
