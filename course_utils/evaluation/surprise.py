"""How surprising each token of a text is to a language model, shown as code with the surprising places marked.

A bug is often a place where the text differs from what the model expects; `planted_bugs` measures how often.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from IPython.display import display
from transformers import PreTrainedModel

LONGEST_WINDOW = 1024  # tokens; a window's logits are window x vocabulary numbers
MOST_BITS = 12.0  # where the colours end: a probability of 1 in 4096
_ORANGE = (230, 159, 0)  # of Okabe and Ito's palette; dark text on it has a contrast of 8 : 1


@dataclass(frozen=True)
class Token:
    """Characters `start` to `end` of a text, their surprise, and the most likely token in their place.

    Without an end-of-text token nothing predicts the first token: its bits are None.
    """

    text: str
    start: int
    end: int
    bits: float | None
    expected: str
    probability: float


@torch.inference_mode()
def token_surprise(model: PreTrainedModel, tokenizer: Any, text: str, window: int | None = None) -> list[Token]:
    """Return the tokens of a text, each with its surprise in bits: -log2 of its probability after all before it.

    The tokens cover every character once: those that share a character become one, with the sum of their bits. Longer
    texts than `window` (the model's context, at most 1024 tokens) are read in windows that overlap by half. Raises
    `ValueError` for an empty text, a window too short, and a tokenizer that is missing or does not suit the model.
    """
    ids, offsets = _encode(tokenizer, text)
    start_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    known = model.get_input_embeddings().num_embeddings
    if max(ids) >= known:
        raise ValueError(
            f"the tokenizer made the id {max(ids)}, but the model knows only {known} tokens: they do not belong "
            "together. Load both from the same folder."
        )
    context = getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW
    window = min(window or LONGEST_WINDOW, context)
    if window < 2:
        raise ValueError(f"a window of {window} tokens predicts nothing; give at least 2.")
    model.eval()
    sequence = ids if start_id is None else [start_id, *ids]
    scores = _scores(model, torch.tensor(sequence, device=model.device), window)
    scores = ([(None, None, 0.0)] if start_id is None else []) + scores
    return _cover(tokenizer, text, offsets, scores)


def _encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    if tokenizer is None:
        raise ValueError("there is no tokenizer; load the model's own with tokenization.load_tokenizer(folder).")
    if not text:
        raise ValueError("the text is empty; give at least one character.")
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{type(tokenizer).__name__} does not tell where its tokens stand; use a fast tokenizer.")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    if not encoded["input_ids"]:
        raise ValueError(
            "the tokenizer turns this text into no tokens. Its folder probably holds a model without tokenizer files."
        )
    return encoded["input_ids"], encoded["offset_mapping"]


def _scores(model: PreTrainedModel, ids: torch.Tensor, window: int) -> list[tuple[float, int, float]]:
    """(bits, most likely id, its probability) of every token but the first; ids (T,)."""
    last = max(0, len(ids) - window)
    scores, done = [], 1  # the first `done` tokens have their score
    for start in [*range(0, last, window // 2), last]:
        part = ids[start : start + window]
        output = model(part[None], attention_mask=torch.ones_like(part)[None])
        logits = output.logits[0, done - start - 1 : -1].float()  # position t predicts token t + 1
        targets = part[done - start :, None]
        total = logits.logsumexp(-1)
        top, expected = logits.max(-1)
        bits = (total - logits.gather(1, targets)[:, 0]) / math.log(2)
        scores += zip(bits.tolist(), expected.tolist(), (top - total).exp().tolist(), strict=True)
        done = start + len(part)
    return scores


def _cover(tokenizer: Any, text: str, offsets: Sequence[tuple[int, int]], scores: Sequence[tuple]) -> list[Token]:
    """Join tokens that share characters; characters of no token (a trimmed space) go to the next one."""
    groups: list[list] = []  # [end, scores]
    for (start, end), score in zip(offsets, scores, strict=True):
        if groups and (start < groups[-1][0] or end <= groups[-1][0] or groups[-1][0] == 0):
            groups[-1] = [max(end, groups[-1][0]), [*groups[-1][1], score]]
        else:
            groups.append([end, [score]])
    groups[-1][0] = len(text)
    tokens, begin = [], 0
    for end, joined in groups:
        bits = [score[0] for score in joined if score[0] is not None]
        expected = "" if joined[0][1] is None else tokenizer.decode([joined[0][1]])
        tokens.append(Token(text[begin:end], begin, end, sum(bits) if bits else None, expected, joined[0][2]))
        begin = end
    return tokens


def surprise_html(tokens: Sequence[Token], label: str = "Code, coloured by how surprising it is to the model") -> str:
    """Return the text as HTML: the more surprising, the more orange; above 12 bits underlined; details on hovering.

    Every colour is given together with its text colour, so that dark themes change neither.
    """
    steps = [f'<span style="{_style(MOST_BITS * i / 4)}">&nbsp;{MOST_BITS * i / 4:.0f}&nbsp;</span>' for i in range(5)]
    box = "padding:.6em;background:#ffffff;color:#1a1a1a;border:1px solid #c8c8c8;border-radius:4px"
    legend = f'<figcaption style="font-size:85%;margin:.3em 0">surprise in bits: {"".join(steps)} or more</figcaption>'
    code = "".join(
        f'<span style="{_style(token.bits or 0.0, token.text)}" title="{_escaped(describe(token))}">'
        f"{_escaped(token.text)}</span>"
        for token in tokens
    )
    pre = f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;margin:0;{box}">{code}</pre>'
    return f'<figure role="group" aria-label="{_escaped(label)}" style="margin:0">{legend}{pre}</figure>'


def describe(token: Token) -> str:
    """Say in words what the colours show: `9.3 bits; expected ' plt' (62 %)`."""
    if token.bits is None:
        return "first token: nothing predicts it"
    return f"{token.bits:.1f} bits; expected {token.expected!r} ({token.probability:.0%})".replace("%", " %")


def surprise_text(tokens: Sequence[Token], most: int = 10) -> str:
    """Return the `most` surprising tokens as lines of text, with line numbers, for a terminal."""
    text = "".join(token.text for token in tokens)
    top = sorted((token for token in tokens if token.bits is not None), key=lambda token: -token.bits)[:most]
    rows = [f"line {text.count(chr(10), 0, token.start) + 1}: {token.text!r}, {describe(token)}" for token in top]
    return "\n".join(["The most surprising tokens:", *rows])


def show_surprise(tokens: Sequence[Token]) -> None:
    """Show a text with its surprising tokens marked in a notebook, or list them in a terminal."""
    display({"text/html": surprise_html(tokens), "text/plain": surprise_text(tokens)}, raw=True)


def _style(bits: float, text: str = "") -> str:
    part = min(bits / MOST_BITS, 1.0)
    red, green, blue = (round(255 + part * (value - 255)) for value in _ORANGE)
    # A line end has no width to be seen, so it gets some; the sign for "very surprising" must not be a colour alone.
    line_end = "padding-left:.5em;" if text[:1] in ("\n", "\r") else ""
    mark = "text-decoration:underline;" if part == 1.0 else ""
    return f"{line_end}{mark}background:#{red:02x}{green:02x}{blue:02x};color:#1a1a1a"


def _escaped(text: str) -> str:
    # A page's reader would turn a carriage return into a line feed, and a zero character into nothing.
    return html.escape(text, quote=True).replace("\r", "&#13;").replace("\0", "\N{SYMBOL FOR NULL}")
