"""Exercises of notebook 01: which files are worth learning from."""

from course_utils.exercises.exercise import exercise

_MODULES = ["pandas", "numpy", "os"]
_LIBRARIES = ["pandas", "sklearn", "matplotlib", "seaborn"]
_WORDS = ("import", "pandas", "sklearn.svm", "# expandas", "x = 1", "Seaborn", "as", "matplotlib.pyplot", "sea born")
# Only valid Python, so that an answer with `ast` is as good as one with text.
_LINES = (
    *("import pandas", "import pandas as pd", "import pandas.io", "import time, pandas", "if x:\n    import pandas"),
    *("from pandas import io", "from pandas.io import sql", "from my.pandas import name", "from time import pandas"),
    *("import pandas_extra", "import mypandas", "import time as pandas", "important = pandas", "from_pandas = 2"),
    *("# import pandas", "text = 'import pandas'", "x = pandas.load(1)", "import os"),
)


@exercise(
    "01.keyword",
    "`keyword in string` is True if the text contains the keyword. Upper and lower case are different letters.",
    "One keyword is enough. Return False only after all of them were tried.",
    examples=[("import numpy as np", _LIBRARIES), ("import pandas as pd", _LIBRARIES), ("IMPORT OS", ["os"])],
    random_inputs=lambda rng: (" ".join(rng.choices(_WORDS, k=rng.randint(0, 3))), rng.sample(_LIBRARIES, k=2)),
    mistakes={1: lambda string, keywords: all(keyword in string for keyword in keywords)},
)
def any_keyword_in_string(string, keywords):
    return any(keyword in string for keyword in keywords)


@exercise(
    "01.import",
    "A name may occur anywhere, in comments too. Look for lines that begin with `import` or `from`; some are indented.",
    "There are two forms, `import module` and `from module import name`; `module.part` counts for `module`.",
    "Compare whole names: `import pandas_profiling` does not import pandas. In a pattern `\\b` ends a name.",
    "`import os, pandas as pd` names two modules: split at the commas, and take the first word of each part.",
    examples=[("import pandas as pd", _LIBRARIES), ("from sklearn.svm import SVC", _LIBRARIES), ("# os", ["os"])],
    random_inputs=lambda rng: ("\n".join(rng.choices(_LINES, k=rng.randint(0, 2))), rng.sample(_MODULES, k=2)),
    mistakes={0: lambda string, modules: any(module in string for module in modules)},
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
    "01.clean",
    "Return a pair: (True, '') to keep the document, (False, 'few letters') to drop it.",
    "`character.isalnum()` is True for letters and digits, of every alphabet; the underscore is neither.",
    "Compare with a quarter of all characters, spaces included. Exactly a quarter is enough.",
    "An empty document has no share; `letters < 0.25 * len(document)` needs no division.",
    examples=[("x = 1",), ("# =====================\n",), ("a---",), ("a----",), ("___",), ("",)],
    random_inputs=lambda rng: ("".join(rng.choices("aab1é_    ==--##|\n", k=rng.randint(0, 9))),),
    mistakes={3: lambda document: enough_letters(document) if document else 1 / 0},
)
def enough_letters(document):
    letters = sum(character.isalnum() for character in document)
    if letters < len(document) / 4:
        return False, "few letters"
    return True, ""
