"""Exercises of notebook 01: which files are worth learning from."""

import random

from course_utils.exercises import Exercise

_LIBRARIES = ["pandas", "sklearn", "matplotlib", "seaborn"]
_WORDS = [
    "import",
    "pandas",
    "sklearn.svm",
    "# expandas",
    "x = 1",
    "Seaborn",
    "as",
    "np",
    "matplotlib.pyplot",
    "sea born",
]
_LINES = (
    "import {m}",
    "import {m} as short",
    "import {m}.sub",
    "import {m}_extra",
    "import my{m}",
    "from {m} import name",
    "from {m}.sub import name",
    "from my.{m} import name",
    "    import {m}",
    "# import {m}",
    "text = 'import {m}'",
    "x = {m}.load(1)",
    "important = {m}",
    "from_{m} = 2",
    "",
)


def _keyword_arguments(rng: random.Random) -> tuple[str, list[str]]:
    text = rng.choice([" ", "\n", "."]).join(rng.choices(_WORDS, k=rng.randint(0, 6)))
    return text, rng.sample(_LIBRARIES, k=rng.randint(0, 4))


def _import_arguments(rng: random.Random) -> tuple[str, list[str]]:
    modules = [*_LIBRARIES, "numpy", "os"]
    lines = [rng.choice(_LINES).format(m=rng.choice(modules)) for _ in range(rng.randint(0, 5))]
    return "\n".join(lines), rng.sample(modules, k=rng.randint(1, 4))


def few_letters(document: str) -> tuple[bool, str]:
    """Keep a document, or say why not: under a quarter of its characters are letters or digits."""
    from course_utils.data import cleaning

    rule = next(rule for rule in cleaning.RULES if rule.name == "few letters")
    return tuple(cleaning.clean(document, rules=[rule]))


def _text(rng: random.Random) -> tuple[str]:
    return ("".join(rng.choices("ab1é_ =-#|\n", weights=(3, 1, 1, 1, 3, 3, 3, 3, 2, 2, 2), k=rng.randint(0, 24))),)


EXERCISES = (
    Exercise(
        id="01.keyword",
        title="Does a text contain one of the keywords?",
        reference="course_utils.data.filtering:any_keyword_in_string",
        examples=(("import numpy as np", _LIBRARIES), ("import pandas as pd", _LIBRARIES)),
        edge_cases=(
            ("", _LIBRARIES),
            ("import pandas", []),
            ("import seaborn as sns", _LIBRARIES),
            ("from sklearn.svm import SVC", _LIBRARIES),
            ("IMPORT PANDAS", _LIBRARIES),
            ("pandas", ["pandas is a library"]),
        ),
        random_arguments=_keyword_arguments,
        hints=(
            "`keyword in string` is True if the text contains the keyword.",
            "Look at all keywords before you return False: it is the answer only if none of them is there.",
            "`any(... for keyword in keywords)` says the same in one line.",
        ),
    ),
    Exercise(
        id="01.import",
        title="Does a script import one of the modules?",
        reference="course_utils.data.filtering:imports_any",
        examples=(
            ("import pandas as pd\n", _LIBRARIES),
            ("from sklearn.svm import SVC\n", _LIBRARIES),
            ("# expandas\nx = 1\n", _LIBRARIES),
        ),
        edge_cases=(
            ("", _LIBRARIES),
            ("import os", ["os"]),
            ("x = 1\nimport os\nimport seaborn as sns\n", _LIBRARIES),
            ("def load():\n    import pandas\n", _LIBRARIES),
            ("# import pandas", _LIBRARIES),
            ("print('import pandas')", _LIBRARIES),
            ("import pandas_profiling", _LIBRARIES),
            ("from pandas.io import json", ["io", "json"]),
            ("from my.pandas import name", _LIBRARIES),
            ("important = pandas", _LIBRARIES),
            ("import os, pandas", _LIBRARIES),
            ("import os as pandas", _LIBRARIES),
        ),
        random_arguments=_import_arguments,
        hints=(
            "An import stands at the beginning of a line, after spaces at most: look at the lines, one by one.",
            "There are two forms, `import module` and `from module import name`; `module.part` counts for `module`.",
            "Compare whole names: `import pandas_profiling` imports no pandas. In a pattern `\\b` ends a name.",
        ),
    ),
    Exercise(
        id="01.clean",
        title="A cleaning rule: keep, or drop with a reason",
        reference=few_letters,
        core="course_utils.data.cleaning:_has_few_letters",
        examples=(("x = 1",), ("# =====================\n",)),
        edge_cases=(("",), ("a---",), ("a----",), ("___",), ("1234",), ("é",), ("a" + " " * 9,)),
        random_arguments=_text,
        hints=(
            "Return a pair: (True, '') to keep the document, (False, 'few letters') to drop it.",
            "`character.isalnum()` is True for letters and digits, of every alphabet; the underscore is neither.",
            "Compare with a quarter of all characters, spaces included. Exactly a quarter is enough.",
            "An empty document has no share; `letters < 0.25 * len(document)` needs no division.",
        ),
    ),
)
