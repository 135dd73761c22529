"""From a loss to numbers that can be compared: perplexity and bits per byte."""

import math


def perplexity(loss: float) -> float:
    """Return e to the `loss` (nats per token); infinite where the number would be too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(loss: float, tokens: int, num_bytes: int) -> float:
    """Turn a loss in nats per token into bits per byte of text, which no longer depends on the tokenizer.

    `tokens` and `num_bytes` count the same text in both units. Raises `ValueError` if one of them is not positive.
    """
    if tokens <= 0 or num_bytes <= 0:
        raise ValueError(
            f"bits per byte need some text, got {tokens} tokens and {num_bytes} bytes; "
            "count both on the text that the loss was measured on."
        )
    return loss / math.log(2) * tokens / num_bytes
