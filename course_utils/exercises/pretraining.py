"""Exercises of notebook 04: measuring a model, completing code, training on your own data."""

import itertools
import re

from course_utils import artifacts
from course_utils.data.corpus import corpus_kind
from course_utils.exercises.exercise import exercise
from course_utils.profiles import get_profile

_FIRST = ("", " x = 1", "    return x", "def f():", "# first", "printer")
_LINES = (
    *("", "  ", "    return x # note", "    if x:", "df.head()", "default = 1", "printer.run()"),
    *("def area(a, b):", "class Box:", "# next", "@cache", "print(x)", "if x:", "if(x):"),
)


@exercise(
    "04.bits_per_byte",
    "Per token is not per byte: the loss of the whole text is loss per token times tokens.",
    "The loss is in nats, to the base e. One bit is ln 2 = `math.log(2)` nats, so there are more bits than nats.",
    examples=[(2.0, 100, 350), (9.01, 1000, 3500), (0.0, 10, 30)],
    random_inputs=lambda rng: (rng.randint(1, 40) / 4, rng.randint(1, 20), rng.randint(20, 60)),
    mistakes={1: lambda loss, tokens, num_bytes: loss * tokens / num_bytes},
)
def bits_per_byte(loss, tokens, num_bytes):
    import math

    bits = loss * tokens / math.log(2)  # of the whole text
    return bits / num_bytes


@exercise(
    "04.first_block",
    "The first line always stays, whatever it begins with. Look at the lines after it, one by one.",
    "Indented lines belong to the block: `\\n    if` does not end it, `\\nif` does.",
    "Compare whole words: `printer` and `default` begin like `print` and `def`, but begin no new block.",
    "Remove the spaces and empty lines at the end with `rstrip()`; the spaces at the beginning are code.",
    examples=[("    return a * b\n\ndef perimeter(a, b):\n",), (" pd\n# load the data\n",)],
    random_inputs=lambda rng: ("\n".join([rng.choice(_FIRST), *rng.choices(_LINES, k=rng.randint(0, 3))]),),
    mistakes={
        0: lambda string: re.split(r"(?m)^(?:class\b|def\b|#|@|print\b|if\b)", string)[0].rstrip(),
        2: lambda string: re.split("\nclass|\ndef|\n#|\n@|\nprint|\nif", string)[0].rstrip(),
    },
)
def first_block(string):
    import re

    return re.split(r"\n(?=(?:class|def|print|if)\b|[#@])", string)[0].rstrip()


def _own_corpus(value: object) -> str:
    """Return what keeps data from being trained on: it opens, has code in two splits, and no file is in both."""
    name, texts = str(getattr(value, "path", value)), []
    try:
        location = artifacts.code_corpus(get_profile(code_corpus=name))
        for split in ("train", "validation"):
            rows = itertools.islice(location.load(split, streaming=True), 20_000)  # a large one takes too long
            texts.append({row["content"] for row in rows if (row["content"] or "").strip()})
    except Exception as error:
        return f"{name} cannot be opened. {type(error).__name__}: {error}"
    train, validation = texts
    if not validation:
        return "The split 'validation' has no text."
    if (characters := sum(map(len, train))) < 100_000:
        return f"'train' has {characters:,} characters. With fewer than 100,000 a model learns them by heart."
    both = len(train & validation)
    if both and corpus_kind(name) != "folder":  # of repositories; their copies are removed before training
        return f"{both} files are in both splits; leave them out of one, or the validation loss is too good."
    return ""


@exercise(
    "04.own_corpus",
    "The easiest is a folder that holds your repositories: the course makes a data set of their .py files.",
    "A data set has data/train-00000-of-00001.parquet, validation-… beside it, the code in the column `content`.",
    "Split by project, not by file: files of one project resemble each other.",
    examine=_own_corpus,
)
def my_corpus():
    import IPython

    return IPython.__path__[0]  # a folder like the one that holds your repositories
