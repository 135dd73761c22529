"""From logits to text: greedy, sampled (temperature, top-k, top-p) or by beam search, with any causal model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.data.sliding_windows import encode_text
from course_utils.models.causal import check_vocabulary
from course_utils.models.gpt import GPTModel, KVCache


def text_to_token_ids(text: str, tokenizer: Any) -> Tensor:
    """Return the token ids of a text as a batch of one row, (1, T); from a Hugging Face or a tiktoken tokenizer."""
    return torch.tensor([encode_text(text, tokenizer)], dtype=torch.long)


def token_ids_to_text(ids: Tensor, tokenizer: Any) -> str:
    """Return the text of token ids (T,) or (1, T); raises `ValueError` for more rows, which would become one text."""
    if ids.ndim > 1 and len(ids) != 1:
        raise ValueError(f"ids have the shape {tuple(ids.shape)}; decode one row at a time: for row in ids.")
    return tokenizer.decode(ids.flatten().tolist())


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Turn logits (B, V) into the probabilities (B, V) that the next token is drawn from.

    The logits are divided by `temperature` (0: all on the best token), then only the `top_k` best tokens stay, then of
    these the fewest whose probabilities reach `top_p`; among equal tokens those with the lower ids.
    """
    if not temperature >= 0 or not (top_k is None or top_k >= 1) or not (top_p is None or 0 < top_p <= 1):
        raise ValueError(
            f"temperature is {temperature}, top_k {top_k} and top_p {top_p}. Allowed are a temperature of 0 (take the "
            "best token) or more, top_k of 1 or more, top_p above 0 and at most 1; None keeps all tokens."
        )
    logits = logits.float()
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    # The largest logit becomes 0 first: a tiny temperature then cannot make two infinities.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is None and top_p is None:
        return logits.softmax(-1)
    best, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V)
    best[..., top_k or logits.shape[-1] :] = -torch.inf
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
) -> Tensor:
    """Continue every row of `idx` (B, T) by up to `max_new_tokens` tokens; return all of them, (B, T + new).

    `model` gives logits (B, T, V) for ids (B, T), or something with `.logits`; it sees the last `context_size` tokens.
    Temperature 0 takes the best token; otherwise it is drawn (`next_token_probabilities`), and the same `generator` or
    seed draws the same text. A row ends with `eos_id`, and is filled with it while others continue. With `num_beams`
    above 1 a beam search looks for the highest mean log probability per new token. A `GPTModel` keeps keys and values.
    """
    if num_beams > 1 and (temperature, top_k, top_p) != (0, None, None):
        raise ValueError("a beam search draws nothing: leave temperature 0, and top_k and top_p out.")
    if isinstance(model, GPTModel):
        check_vocabulary(int(idx.max()), model.cfg["vocab_size"])
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)  # on the CPU: the same text on every device

    def choose(logits: Tensor) -> Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        probs = next_token_probabilities(logits, temperature, top_k, top_p)
        at = probs.device if generator is None else generator.device
        return torch.multinomial(probs.to(at), 1, generator=generator)[:, 0].to(idx.device)

    room = (context_size, min(context_size, idx.shape[1] + max_new_tokens) if use_cache else 0)
    with eval_mode(model), torch.inference_mode():  # faster than no_grad
        if num_beams > 1:
            found = [_beam_search(_reader(model, *room), row[None], max_new_tokens, num_beams, eos_id) for row in idx]
            texts = nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=eos_id or 0)
        else:
            texts = _one_by_one(_reader(model, *room), idx, max_new_tokens, choose, eos_id)
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


def _reader(model: Callable, context_size: int, kept: int) -> Callable:
    """Return a function for the logits (B, V) after each text; a `GPTModel` keeps keys and values of `kept` tokens."""
    cache = KVCache(model.cfg, kept) if kept and isinstance(model, GPTModel) else None

    def read(texts: Tensor, parents: Tensor | None = None) -> Tensor:  # row i continues row parents[i] of the last call
        # Beyond the context all positions move with each token: nothing kept is of use, and the window is read anew.
        if cache is None or texts.shape[1] > context_size:
            logits = model(texts[:, -context_size:])
        else:
            if parents is not None:
                cache.reorder(parents)
            logits = model(texts[:, cache.length :], cache)
        return getattr(logits, "logits", logits)[:, -1].float()

    return read


def _one_by_one(read: Callable, idx: Tensor, most: int, choose: Callable, eos_id: int | None) -> Tensor:
    ended = torch.zeros(len(idx), dtype=torch.bool, device=idx.device)
    for _ in range(most):
        token = choose(read(idx))  # (B,)
        if eos_id is not None:
            token = token.masked_fill(ended, eos_id)
            ended |= token == eos_id
        idx = torch.cat([idx, token[:, None]], dim=1)
        if ended.all():
            break
    return idx


def _beam_search(read: Callable, texts: Tensor, most: int, num_beams: int, eos_id: int | None) -> Tensor:
    """Return the text (T,) with the highest mean log probability: sums alone would prefer texts that end early."""
    best, best_mean, parents = texts[0], -torch.inf, None  # best: of the finished texts
    sums = torch.zeros(1, device=texts.device)  # (K,): one text at first, then up to num_beams unfinished ones
    for step in range(1, most + 1):
        totals = sums[:, None] + read(texts, parents).log_softmax(-1)  # (K, V)
        if eos_id is not None:
            mean, beam = (totals[:, eos_id] / step).max(0)
            if mean > best_mean:
                best, best_mean = F.pad(texts[beam], (0, 1), value=eos_id), mean
            totals[:, eos_id] = -torch.inf
        sums, choice = totals.flatten().topk(min(num_beams, totals.numel()))  # (K,), best first
        parents, vocabulary = choice // totals.shape[1], totals.shape[1]
        texts = torch.cat([texts[parents], (choice % vocabulary)[:, None]], dim=1)
        # Sums only fall, so this is the best mean that an unfinished text can still reach.
        if sums[0] / most <= best_mean:
            return best
    return texts[0]
