"""Completing code with a trained model and its tokenizer, by one sampler, and scoring common idioms."""

import ast
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase, RepetitionPenaltyLogitsProcessor

from course_utils.models.causal import check_vocabulary, context_length
from course_utils.models.decoding import eval_mode, next_token_probabilities
from course_utils.models.prompts import IDIOMS

_NEXT_STATEMENT = re.compile(r"\n(?=[^\s])")  # a line that is not indented ends the body of a function
_NEXT_BLOCK = re.compile(r"\n(?=class\b|def\b|#|@|print\b|if\b)")


def first_block(string: str) -> str:
    """Cut a completion where the next top-level block begins (class, def, comment, decorator, print, if), C11."""
    return _NEXT_BLOCK.split(string, maxsplit=1)[0].rstrip()


def function_body(string: str) -> str:
    """Cut a completion where the function ends that its prompt began: before the next line without indentation."""
    return _NEXT_STATEMENT.split(string, maxsplit=1)[0].rstrip()


def runnable_beginning(prompt: str, completion: str) -> str:
    """Drop lines from the end of a completion until it is Python after the prompt; keep all if it never is."""
    lines = completion.splitlines(keepends=True)
    for end in range(len(lines), 0, -1):
        beginning = "".join(lines[:end])
        try:
            ast.parse(prompt + beginning)
        except (SyntaxError, ValueError):  # ValueError: null bytes
            continue
        return beginning.rstrip()
    return completion


def stream_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    new_tokens: int,
    candidates: int = 1,
    temperature: float = 0.4,
    top_p: float | None = 0.95,
    top_k: int | None = None,
    seed: int = 1,
    one_block: bool = False,
    repetition_penalty: float = 1.0,
) -> Iterator[list[str]]:
    """Sample completions side by side, and yield all of them after every token; stop iterating to stop generating.

    Temperature 0 takes the most likely token. A prompt that leaves no room for `new_tokens` in the context loses tokens
    on its left. With `one_block` a completion ends where the next top-level block begins. A `repetition_penalty` above
    1 makes tokens of the prompt and of the completion less likely. The seed alone decides, on every device.
    """
    context = context_length(model)
    if not 1 <= new_tokens < context:
        raise ValueError(f"{new_tokens} new tokens are not possible; give 1 to {context - 1} (context: {context}).")
    inputs = _encode(model, tokenizer, prompt)[:, new_tokens - context :].repeat(candidates, 1)  # (B, T)
    seen, cache, penalize = inputs, None, RepetitionPenaltyLogitsProcessor(repetition_penalty)
    generator = torch.Generator().manual_seed(seed)
    made, texts, open_rows = [[] for _ in range(candidates)], [""] * candidates, list(range(candidates))
    for _ in range(new_tokens):
        with eval_mode(model), torch.inference_mode():
            mask = torch.ones_like(seen)  # every token counts, also one that is used for padding elsewhere
            output = model(inputs, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = penalize(seen, output.logits[:, -1].float()).cpu()
        probs = next_token_probabilities(logits, temperature, top_k, top_p)  # (B, V)
        chosen = torch.multinomial(probs, 1, generator=generator) if temperature else probs.argmax(-1, keepdim=True)
        inputs, cache = chosen.to(model.device), output.past_key_values
        seen = torch.cat([seen, inputs], dim=1)
        open_rows = [row for row in open_rows if chosen[row] != tokenizer.eos_token_id]
        for row in list(open_rows):
            made[row].append(chosen[row].item())
            text = tokenizer.decode(made[row], skip_special_tokens=True).rstrip("\ufffd")  # half a character
            texts[row] = first_block(text) if one_block else text
            # A word at the end may grow, such as "def" to "default".
            if one_block and texts[row] != text.rstrip() and not re.search(r"\w$", text):
                open_rows.remove(row)
        yield list(texts)
        if not open_rows:
            break


def complete_code(
    pipe: Pipeline, prompt: str, max_length: int = 64, num_completions: int = 4, seed: int = 1
) -> list[str]:
    """Sample completions of up to `max_length` new tokens at temperature 0.4 and top-p 0.95, cut to the first block."""
    options = {"new_tokens": max_length, "candidates": num_completions, "seed": seed, "one_block": True}
    *_, texts = stream_completions(pipe.model, pipe.tokenizer, prompt, **options)
    return texts


def complete_greedily(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, new_tokens: int, **options: float
) -> str:
    """Return the continuation that always takes the most likely token; `options` as of `stream_completions`."""
    *_, texts = stream_completions(model, tokenizer, prompt, new_tokens=new_tokens, temperature=0, **options)
    return texts[0]


def sample_candidates(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, count: int, new_tokens: int, seed: int = 1
) -> list[str]:
    """Sample bodies for the function that the prompt begins, without lines at the end that are not Python."""
    *_, texts = stream_completions(model, tokenizer, prompt, new_tokens=new_tokens, candidates=count, seed=seed)
    return [runnable_beginning(prompt, function_body(text)) for text in texts]


def score_idioms(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, idioms: Sequence[tuple[str, str, str]] = IDIOMS
) -> list[bool]:
    """Complete every idiom greedily, and return whether its continuation is the expected one."""
    lengths = [_encode(model, tokenizer, expected).shape[1] + 2 for _, _, expected in idioms]
    rows = zip(idioms, lengths, strict=True)
    return [complete_greedily(model, tokenizer, prompt, n).startswith(wanted) for (_, prompt, wanted), n in rows]


def _encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    if not text:
        raise ValueError("the prompt is empty; a completion needs at least one character to continue.")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
    check_vocabulary(int(ids.max()), model.get_input_embeddings().num_embeddings)
    return ids
