"""Exercises of notebook 01: which files are worth learning from."""

import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from course_utils.exercises.comparing import shown
from course_utils.exercises.exercise import exercise

_MODULES = ["pandas", "numpy", "os"]
_LIBRARIES = ["pandas", "sklearn", "matplotlib", "seaborn"]
# Only valid Python, so that an answer with `ast` is as good as one with text.
_LINES = (
    *("import pandas", "import pandas as pd", "import pandas.io", "import time, pandas", "if x:\n    import pandas"),
    *("from pandas import io", "from pandas.io import sql", "from my.pandas import name", "from time import pandas"),
    *("import pandas_extra", "import mypandas", "import time as pandas", "important = pandas", "from_pandas = 2"),
    *("# import pandas", "text = 'import pandas'", "x = pandas.load(1)", "import os"),
)


def _anywhere(string, modules):
    return any(f"{word} {module}" in string for module in modules for word in ("import", "from"))


def _second_word(string, modules):
    words = [line.split() for line in string.splitlines()]
    return any(len(line) > 1 and line[0] in ("import", "from") and line[1] in modules for line in words)


@exercise(
    "01.import",
    "A name may occur anywhere, in comments too. Look for lines that begin with `import` or `from`; some are indented.",
    "A quoted text is not an import: `x = 'import pandas'` imports nothing. Look at the beginning of each line.",
    "`from pandas.io import json` imports pandas, too, and two modules may share a line: `import os, pandas`.",
    "Compare whole names: `import pandas_profiling` does not import pandas. In a pattern `\\b` ends a name.",
    "`import os, pandas as pd` names two modules: split at the commas, and take the first word of each part.",
    examples=[("import pandas as pd", _LIBRARIES), ("from sklearn.svm import SVC", _LIBRARIES), ("# os", ["os"])],
    random_inputs=lambda rng: ("\n".join(rng.choices(_LINES, k=rng.randint(0, 2))), rng.sample(_MODULES, k=2)),
    mistakes={0: lambda string, modules: any(m in string for m in modules), 1: _anywhere, 2: _second_word},
)
def imports_any(string, modules):
    for line in string.splitlines():
        first, _, rest = line.strip().partition(" ")
        if first in ("import", "from"):
            names = rest.split(",") if first == "import" else [rest]  # as in "os, numpy.random as random"
            if any(name.split()[0].split(".")[0] in modules for name in names):
                return True
    return False


@exercise(
    "01.jaccard",
    "A shared word is in both sets; divide by the number of different words, in which it counts once.",
    "A short file inside a long one is not a copy of it: divide by all words of both, not by those of one.",
    "`left & right` is the set of shared words, `left | right` that of all words.",
    examples=[({"a", "b", "c"}, {"b", "c", "d"}), ({"a"}, {"a"}), ({"a"}, {"b"}), ({"a"}, {"a", "b", "c", "d"})],
    random_inputs=lambda rng: tuple(set(rng.sample("abcdef", k=rng.randint(1, 5))) for _ in range(2)),
    mistakes={
        0: lambda left, right: len(left & right) / (len(left) + len(right)),
        1: lambda left, right: len(left & right) / min(len(left), len(right)),
    },
)
def jaccard(left, right):
    return len(left & right) / len(left | right)


# Lines in which a word begins with "test", has it inside, or neither; a word stands alone or before a bracket.
_CODE = (
    *("x = 1", "latest = prices[-1]", "print(latest)", "greatest = max(prices)", "x_test = rows[9:]"),
    *("import os", "def test_sum():", "# a test", "def test_mean():", "test_rows = 3", ""),
)


def _letters(text):
    return text.count("test") > int(0.05 * len(text.splitlines()))


@exercise(
    "01.test_rule",
    "`latest` is still counted. In a pattern, `\\btest` finds `test` at the beginning of a word only.",
    "In a file of three lines, 5 % is less than one line, so a single mention is enough. Set a least limit of 1.",
    "Tests are full of names such as `test_sum`; a word that begins with `test` counts, too.",
    "`max(1, 0.05 * len(text.splitlines()))` is the limit; only what is above it is a test.",
    examples=[
        ("latest = prices[-1]",),
        ("def test_sum():\n    assert 1 + 1 == 2\n\ndef test_mean():\n    assert True",),
        ("# a test\nx = 1\ny = 2",),
        ("latest = 1\nx = latest\nprint(latest)",),
        ("\n" * 57 + "def test_sum():\n" * 3,),
        ("\n" * 56 + "def test_sum():\n" * 4,),
        ("",),
    ],
    random_inputs=lambda rng: ("\n".join(rng.choices(_CODE, k=rng.randint(1, 6))),),
    mistakes={
        0: lambda text: text.count("test") > max(1, 0.05 * len(text.splitlines())),
        1: lambda text: len(re.findall(r"\btest", text)) > 0.05 * len(text.splitlines()),
        2: lambda text: len(re.findall(r"\btest\b", text)) > max(1, 0.05 * len(text.splitlines())),
    },
    bug=_letters,
)
def is_test(text):
    import re

    mentions = len(re.findall(r"\btest", text))
    return mentions > max(1, 0.05 * len(text.splitlines()))


def _limit(answer: Any, dropped: Mapping[int, int]) -> str:
    """Judge a predicted number of documents by how many the rule drops at its limit of 5, and how many at 10."""
    if not isinstance(answer, Real) or isinstance(answer, bool) or not 0 <= answer < float("inf"):
        return f"Give a number of documents; this is {shown(answer)}."
    at_five, at_ten = dropped[5], dropped[10]
    more = at_ten - at_five
    found = f"{more:,} more go: {at_five:,} at the limit of 5, {at_ten:,} at 10."
    if abs(answer - more) <= max(3, more / 4):
        return ""
    if answer == at_ten:
        return f"That is how many go at 10; the question is how many more than at 5. {found}"
    if answer in (at_five, 2 * at_five):
        return f"Twice the limit does not drop twice as many: only documents with 5 to 9 assignments join. {found}"
    if answer > more:
        return f"Too many: the rule sees only what earlier rules have left, and spares user-style documents. {found}"
    return f"Too few: scripts with 5 to 9 assignments are more frequent than you thought. {found}"


@exercise(
    "01.limit",
    "At the limit of 10, the documents with 5 to 9 assignments go as well. How many are that?",
    "Documents that an earlier rule drops, or that are user-style, are not counted.",
    examine=_limit,
)
def more_at_ten(dropped):
    return dropped[10] - dropped[5]
