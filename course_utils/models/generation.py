"""Completing code with a trained model, and scoring the completions of common idioms; no training here.

Choosing tokens by hand is the module decoding; its functions can be imported from here, too.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import (
    LogitsProcessorList,
    Pipeline,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    set_seed,
)

from course_utils.models.decoding import eval_mode
from course_utils.models.decoding import generate_text as generate_text
from course_utils.models.decoding import next_token_probabilities as next_token_probabilities
from course_utils.models.decoding import text_to_token_ids as text_to_token_ids
from course_utils.models.decoding import token_ids_to_text as token_ids_to_text

# The four prompts of the tutorial (SYSTEMS A11): the comment says what the code should do.
TUTORIAL_PROMPTS = {
    "scatter plot": """# create some data
x = np.random.randn(100)
y = np.random.randn(100)

# create scatter plot with x, y
""",
    "data frame": """# create some data
x = np.random.randn(100)
y = np.random.randn(100)

# create dataframe from x and y
""",
    "groupby": """# dataframe with profession, income and name
df = pd.DataFrame({'profession': x, 'income': y, 'name': z})

# calculate the mean income per profession
""",
    "random forest": """# import random forest regressor from scikit-learn
from sklearn.ensemble import RandomForestRegressor

# fit random forest model with 300 estimators on X, y:
""",
}

# What the book asks its model for (SYSTEMS C11).
BOOK_PROMPTS = {
    "rectangle": '''def area_of_rectangle(a: float, b: float):
    """Return the area of the rectangle with these sides."""''',
    "links": '''def get_urls_from_html(html):
    """Get all links of an HTML page."""''',
    "mean in NumPy": """# a function in native Python:
def mean(a):
    return sum(a) / len(a)

# the same function using numpy:
import numpy as np
def mean(a):""",
    "classifier of 20 trees": """X = np.random.randn(100, 100)
y = np.random.randint(0, 2, 100)

# fit a random forest classifier with 20 estimators""",
}

# What the blog asks its model for (SYSTEMS E9).
BLOG_PROMPTS = {
    "file size": '''def get_file_size(path):
    """Return the size of a file in bytes."""''',
    "unit test": """def is_even(value):
    \"\"\"Return True if the value is even.\"\"\"
    return value % 2 == 0

# unit tests for is_even:
assert""",
    "classifier": """from transformers import AutoModelForSequenceClassification

# load a BERT classifier with two labels
model =""",
}

# (kind, prompt, continuation): idioms that every data-science script shares.
IDIOMS = (
    ("alias", "import pandas as", " pd"),
    ("alias", "import numpy as", " np"),
    ("alias", "import matplotlib.pyplot as", " plt"),
    ("alias", "import seaborn as", " sns"),
    ("import", "from sklearn.model_selection import", " train_test_split"),
    ("import", "import pandas as pd\nimport matplotlib.", "pyplot as plt"),
    ("import", "from sklearn.linear_model import", " LogisticRegression"),
    ("import", "import numpy as np\n\nfrom", " sklearn"),
    ("call", "import matplotlib.pyplot as plt\n\nfig, ax =", " plt.subplots("),
    ("call", "import numpy as np\n\nrng = np.random.", "default_rng("),
    ("call", "ax.set_xlabel('x')\nax.set_", "ylabel("),
    ("call", "X, y = make_classification(", "n_"),
    ("call", "X_train, X_test, y_train, y_test =", " train_test_split("),
    ("call", "clf.fit(X_train,", " y_train)"),
    ("syntax", "for i in", " range("),
    ("syntax", "if __name__ ==", ' "__main__"'),
    ("syntax", "def __init__(", "self"),
    ("syntax", "class Model:\n    def fit(self, X, y):\n        return", " self"),
)

# A line that is not indented ends the body of a function.
_NEXT_STATEMENT = re.compile(r"\n(?=[^\s])")
_NEXT_BLOCK = re.compile(r"\n(?=class\b|def\b|#|@|print\b|if\b)")


@dataclass(frozen=True)
class IdiomScore:
    """One idiom: what the model wrote, whether it begins as expected, and how likely the expected text was."""

    kind: str
    prompt: str
    expected: str
    got: str
    hit: bool
    probability: float


@dataclass(frozen=True)
class Progress:
    """Completions as far as they are written: their texts, the longest one's tokens, and what the prompt lost."""

    texts: list[str]
    tokens: int
    tokens_cut: int


def first_block(string: str) -> str:
    """Cut a completion where the next top-level block begins (class, def, comment, decorator, print, if), C11."""
    return _NEXT_BLOCK.split(string, maxsplit=1)[0].rstrip()


def function_body(string: str) -> str:
    """Cut a completion where the function ends that its prompt began: before the next line without indentation."""
    return _NEXT_STATEMENT.split(string, maxsplit=1)[0].rstrip()


def runnable_beginning(prompt: str, completion: str) -> str:
    """Drop lines from the end of a completion until prompt and completion are Python; all of it if that never is.

    Small models go on writing after the answer; half a statement there would spoil a right program.
    """
    lines = completion.splitlines(keepends=True)
    for end in range(len(lines), 0, -1):
        beginning = "".join(lines[:end])
        if _is_python(prompt + beginning):
            return beginning.rstrip()
    return completion


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):  # ValueError: null bytes
        return False
    return True


def complete_code(
    pipe: Pipeline, prompt: str, max_length: int = 64, num_completions: int = 4, seed: int = 1
) -> list[str]:
    """Sample completions at temperature 0.4 and top-p 0.95, each cut to its first block, without the prompt.

    `max_length` counts new tokens only, and is lowered if prompt and completion would not fit into the context. The
    same seed gives the same text. Raises `ValueError` for an empty prompt, one that fills the context, values out of
    range, and a pipeline without tokenizer.
    """
    context = pipe.model.config.max_position_embeddings
    _check_sampling(min(max_length, context - 1), context, num_completions, temperature=0.4, top_p=0.95, top_k=0)
    if pipe.tokenizer is None:
        raise ValueError("the pipeline has no tokenizer; make it with pipeline(..., tokenizer=tokenizer).")
    _encode(pipe.tokenizer, prompt, pipe.model.device)
    room = _room(pipe.model, pipe.tokenizer, prompt, max_length)
    set_seed(seed)
    with eval_mode(pipe.model):
        results = pipe(
            prompt,
            max_new_tokens=room,
            num_return_sequences=num_completions,
            do_sample=True,
            temperature=0.4,
            top_p=0.95,
            top_k=0,
            return_full_text=False,
        )
    return [first_block(result["generated_text"]) for result in results]


def complete_greedily(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, new_tokens: int) -> str:
    """Return the most likely continuation, one best token after the other; raises `ValueError` for an empty prompt."""
    ids = _encode(tokenizer, prompt, model.device)
    with eval_mode(model), torch.inference_mode():
        output = model.generate(
            **ids, max_new_tokens=_room(model, tokenizer, prompt, new_tokens), do_sample=False, num_beams=1
        )
    return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def stream_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    new_tokens: int = 32,
    candidates: int = 1,
    temperature: float = 0.4,
    top_p: float = 0.95,
    top_k: int = 0,
    seed: int = 1,
    one_block: bool = True,
) -> Iterator[Progress]:
    """Sample completions side by side, and yield all of them after every token; who stops iterating ends the work.

    Temperature 0 takes the most likely token, `top_k` 0 allows all. A prompt that leaves no room for `new_tokens` in
    the context loses tokens on its left. With `one_block` a completion ends where the next top-level block begins. The
    seed alone decides, also when several threads sample (from a model in evaluation mode). Raises `ValueError` for an
    empty prompt and values out of range.
    """
    context = model.config.max_position_embeddings
    _check_sampling(new_tokens, context, candidates, temperature, top_p, top_k)
    ids = _encode(tokenizer, prompt, model.device)["input_ids"]
    cut = max(0, ids.shape[1] - (context - new_tokens))
    inputs, cache = ids[:, cut:].repeat(candidates, 1), None  # (B, T)
    mask = torch.ones_like(inputs)  # every token counts, also one that is used for padding elsewhere
    certain = temperature < 0.001  # smaller divisors would overflow, and leave no choice either
    warpers = LogitsProcessorList([] if certain else [TemperatureLogitsWarper(float(temperature))])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    generator = torch.Generator().manual_seed(seed)
    made: list[list[int]] = [[] for _ in range(candidates)]
    texts, open_rows = [""] * candidates, set(range(candidates))
    while open_rows and max(map(len, made)) < new_tokens:
        with eval_mode(model), torch.inference_mode():
            output = model(inputs, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            scores = output.logits[:, -1].float().cpu()  # (B, V)
            cache = output.past_key_values
            chosen = scores.argmax(-1, keepdim=True)
            if not certain:
                chosen = torch.multinomial(warpers(inputs, scores).softmax(-1), 1, generator=generator)
        inputs = chosen.to(model.device)  # (B, 1)
        mask = torch.cat([mask, torch.ones_like(inputs)], dim=1)
        for row in sorted(open_rows):
            token = chosen[row].item()
            if token == tokenizer.eos_token_id:
                open_rows.remove(row)
                continue
            made[row].append(token)
            text = tokenizer.decode(made[row], skip_special_tokens=True).rstrip("\ufffd")  # half a character
            texts[row] = first_block(text) if one_block else text
            if texts[row] != text.rstrip() and one_block:
                open_rows.remove(row)
        yield Progress(list(texts), max(map(len, made)), cut)


def _check_sampling(
    new_tokens: int, context: int, candidates: int, temperature: float, top_p: float, top_k: int
) -> None:
    rules = (
        (1 <= new_tokens < context, f"new_tokens is {new_tokens}; allowed are 1 to {context - 1} (context {context})"),
        (candidates >= 1, f"candidates is {candidates}; at least 1 is needed"),
        (temperature >= 0, f"temperature is {temperature}; it cannot be negative, and 0 takes the most likely token"),
        (0 < top_p <= 1, f"top_p is {top_p}; it must be above 0 and at most 1"),
        (top_k >= 0, f"top_k is {top_k}; it cannot be negative, and 0 allows every token"),
    )
    for ok, message in rules:
        if not ok:
            raise ValueError(message + ".")


def sample_candidates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    count: int,
    new_tokens: int,
    temperature: float = 0.4,
    top_p: float = 0.95,
    seed: int = 1,
) -> list[str]:
    """Sample `count` bodies for the function that the prompt begins, all in one batch; the same seed, the same text.

    Each ends where the function does, and lines at its end that are no Python are dropped. A prompt that leaves no room
    for `new_tokens` in the context loses tokens on its left. Raises `ValueError` for an empty prompt and values out of
    range.
    """
    context = model.config.max_position_embeddings
    _check_sampling(new_tokens, context, count, temperature, top_p, top_k=0)
    ids = {name: tensor[:, new_tokens - context :] for name, tensor in _encode(tokenizer, prompt, model.device).items()}
    set_seed(seed)
    with eval_mode(model), torch.inference_mode():
        output = model.generate(
            **ids,
            max_new_tokens=new_tokens,
            num_return_sequences=count,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            pad_token_id=tokenizer.eos_token_id,  # what ended rows are filled with; padding would be warned about
        )
    texts = tokenizer.batch_decode(output[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return [runnable_beginning(prompt, function_body(text)) for text in texts]


def score_idioms(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, idioms: Sequence[tuple[str, str, str]] = IDIOMS
) -> list[IdiomScore]:
    """Complete every idiom greedily, and say how likely its expected continuation was to the model."""
    scores = []
    for kind, prompt, expected in idioms:
        wanted = len(tokenizer(expected, add_special_tokens=False)["input_ids"])
        got = complete_greedily(model, tokenizer, prompt, new_tokens=wanted + 2)
        probability = _probability(model, tokenizer, prompt, expected)
        scores.append(IdiomScore(kind, prompt, expected, got, got.startswith(expected), probability))
    return scores


def hit_share(scores: Sequence[IdiomScore]) -> float:
    """Share of idioms that were completed as expected, between 0 and 1."""
    return sum(score.hit for score in scores) / len(scores)


def _probability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, expected: str) -> float:
    head = _encode(tokenizer, prompt, model.device)["input_ids"]
    tail = _encode(tokenizer, expected, model.device)["input_ids"]
    with eval_mode(model), torch.inference_mode():
        logits = model(torch.cat([head, tail], dim=1)).logits[0].float()  # (T, V)
    log_probs = logits[head.shape[1] - 1 : -1].log_softmax(-1)  # (tail, V): position t predicts token t + 1
    return log_probs.gather(1, tail[0, :, None]).sum().exp().item()


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, device: torch.device) -> dict[str, torch.Tensor]:
    if not isinstance(text, str):
        raise ValueError(f"the prompt is {type(text).__name__}; give one text. Complete several prompts one by one.")
    if not text:
        raise ValueError("the prompt is empty; a completion needs at least one character to go on from.")
    half = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
    if half:
        raise ValueError(f"the prompt holds {half!r}, half a character, which no tokenizer reads; leave it out.")
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).to(device)
    return {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}


def _room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, wanted: int) -> int:
    used = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    context = model.config.max_position_embeddings
    if used >= context:
        raise ValueError(
            f"the prompt has {used} tokens, the model's context is {context}; shorten the prompt to leave room."
        )
    return min(wanted, context - used)
