"""How surprising each token of a text is to a language model, shown as code with the surprising places marked.

A bug is often a place where the text differs from what the model expects; `planted_bugs` measures how often.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from course_utils import language, plots

LONGEST_WINDOW = 1024  # tokens; a window's logits are window x vocabulary numbers
STEPS = (0, 3, 6, 9, 12)  # bits in the legend of the colors, which end there: a probability of 1 in 4096
CAPTION = '<figcaption style="font-size:85%;margin:.3em 0">{}</figcaption>'


class Token(NamedTuple):
    """Characters `start` to `end` of a text, their surprise, and the most likely token in their place."""

    text: str
    start: int
    end: int
    bits: float
    expected: str
    probability: float

    @property
    def details(self) -> str:
        """What the colors show, in words: `9.3 bits; expected ' plt' (62 %)`."""
        return f"{self.bits:.1f} bits; expected {self.expected!r} ({100 * self.probability:.0f} %)"


@torch.inference_mode()
def token_surprise(model: PreTrainedModel, tokenizer: Any, text: str) -> list[Token]:
    """Return the tokens of a text, each with its surprise in bits: -log2 of its probability after all before it.

    The tokens cover every character once: those that share a character become one, with the sum of their bits. Texts
    longer than the model's context, or 1024 tokens, are read in windows that overlap by half.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    ids, known = encoded["input_ids"], model.get_input_embeddings().num_embeddings
    if not ids:
        raise ValueError("there are no tokens: the text is empty, or the tokenizer's folder has no tokenizer files.")
    if max(ids) >= known:
        raise ValueError(f"the tokenizer made the id {max(ids)}, but the model has only {known} tokens; load its own.")
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    scores = _scores(model.eval(), torch.tensor([first, *ids], device=model.device))
    return _cover(tokenizer, text, encoded["offset_mapping"], scores)


def _scores(model: PreTrainedModel, ids: torch.Tensor) -> list[tuple[float, int, float]]:
    """Return (bits, most likely id, its probability) of every token but the first; ids (T,)."""
    window = min(LONGEST_WINDOW, getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW)
    last = max(0, len(ids) - window)
    scores, done = [], 1  # the first `done` tokens have their score
    for start in [*range(0, last, window // 2), last]:
        part = ids[start : start + window]
        output = model(part[None], attention_mask=torch.ones_like(part)[None])
        logits = output.logits[0, done - start - 1 : -1].float()  # position t predicts token t + 1
        total, (top, expected) = logits.logsumexp(-1), logits.max(-1)
        bits = (total - logits.gather(1, part[done - start :, None])[:, 0]) / math.log(2)
        scores += zip(bits.tolist(), expected.tolist(), (top - total).exp().tolist(), strict=True)
        done = start + len(part)
    return scores


def _cover(tokenizer: Any, text: str, offsets: Sequence[tuple[int, int]], scores: Sequence[tuple]) -> list[Token]:
    """Join tokens that share characters; characters of no token (a trimmed space) go to the next one."""
    groups: list[list] = []  # [end, bits, most likely id, its probability]
    for (start, end), (bits, *guess) in zip(offsets, scores, strict=True):
        if groups and (start < groups[-1][0] or end <= groups[-1][0] or groups[-1][0] == 0):
            groups[-1][:2] = max(end, groups[-1][0]), groups[-1][1] + bits
        else:
            groups.append([end, bits, *guess])
    groups[-1][0] = len(text)
    starts = [0, *(group[0] for group in groups[:-1])]
    return [
        Token(text[start:end], start, end, bits, tokenizer.decode([guess]), probability)
        for start, (end, bits, guess, probability) in zip(starts, groups, strict=True)
    ]


def surprise_picture(tokens: Sequence[Token], name: str = "the model") -> plots.Picture:
    """Return a text in the shades of its surprise to `name`, details under the mouse; in a terminal, where it is most.

    Above 12 bits the text is underlined: "very surprising" must not be shown by a color alone.
    """
    steps = (f'<span style="background:{_shade(bits)};color:#1a1a1a">&nbsp;{bits:.0f}&nbsp;</span>' for bits in STEPS)
    words = language.text("surprise in bits: {steps} or more").format(steps="".join(steps))
    legend = CAPTION.format(words)
    pieces, kinds, titles = zip(*((token.text, _shade(token.bits), token.details) for token in tokens), strict=True)
    top = max(tokens, key=lambda token: token.bits)
    alt = f"Code, colored by how surprising it is to {name}; most of all {top.text.strip()!r}: {top.details}."
    picture = plots.spans(pieces, kinds=kinds, titles=titles, legend=legend, alt=alt, plain=True)
    return plots.Picture(picture.html, surprise_text(tokens))


def surprise_text(tokens: Sequence[Token], most: int = 10) -> str:
    """Return the `most` surprising tokens as lines of text, with line numbers."""
    text = "".join(token.text for token in tokens)
    top = sorted(tokens, key=lambda token: -token.bits)[:most]
    rows = (f"line {text.count(chr(10), 0, token.start) + 1}: {token.text!r}, {token.details}" for token in top)
    return "\n".join(["The most surprising tokens:", *rows])


def _shade(bits: float) -> str:
    """Return CSS: the more bits, the more of Okabe and Ito's orange; dark text on it has a contrast of 8 : 1."""
    part = min(bits / STEPS[-1], 1.0)
    color = "".join(f"{round(255 + part * (value - 255)):02x}" for value in (230, 159, 0))
    return f"#{color};text-decoration:underline" if part == 1.0 else f"#{color}"
