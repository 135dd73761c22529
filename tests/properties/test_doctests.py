"""Doctest extraction: the script holds exactly the source of the examples."""

import difflib
import doctest
import importlib
import inspect
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data.doctests import (
    DIRECTIVE,
    SHORTEST,
    assumed_imports,
    docstrings,
    doctest_document,
    example_blocks,
)

STATEMENTS = (
    "x = 1",
    "df = frame.groupby('key').mean()",
    "print('a\\nb')",
    "for row in table:\n    if row:\n\n        print(row)",
    "value = f(1,\n          2)",
    "text = 'not a prompt: >>> x'",
)
PROSE = st.text(st.characters(categories=("L", "N", "Zs"), include_characters=".,:;()"), max_size=40)


def with_prompts(statement: str) -> str:
    first, *rest = statement.split("\n")
    return "\n".join([f">>> {first}", *(f"... {line}".rstrip() for line in rest)])


def code_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


@st.composite
def docstring_and_statements(draw) -> tuple[str, list[str]]:
    indent = draw(st.sampled_from(["", "    ", "        "]))
    parts, statements = [draw(PROSE)], []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            parts += ["", draw(PROSE), ""]
        statement = draw(st.sampled_from(STATEMENTS))
        statements.append(statement)
        parts.append(with_prompts(statement))
        if draw(st.booleans()):
            parts += [draw(PROSE.filter(lambda text: text.strip())), ""]  # what the example prints
    text = "\n".join(parts)
    return "\n".join(indent + line if line.strip() else line for line in text.split("\n")), statements


@given(st.lists(docstring_and_statements(), max_size=5))
def test_the_script_is_exactly_the_source_of_the_examples(functions):
    source = "\n".join(f"def f{i}():\n    {text!r}\n" for i, (text, _) in enumerate(functions))
    wanted = [line for _, statements in functions for statement in statements for line in code_lines(statement)]
    script = doctest_document(source)
    if len(wanted) < SHORTEST:
        assert script == ""
    else:
        assert code_lines(script) == wanted


@given(st.text())
def test_any_text_gives_a_script_or_nothing(text):
    assert isinstance(doctest_document(text), str)
    assert isinstance(doctest_document(f"'''>>> {text}'''"), str)


@pytest.mark.parametrize("name", ["difflib", "statistics", "heapq", "textwrap", "fractions"])
def test_real_modules_agree_with_doctests_own_finder(name):
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder().find(module)
    theirs = Counter(DIRECTIVE.sub("", line) for t in tests for e in t.examples for line in e.source.splitlines())
    blocks = [block for text in docstrings(inspect.getsource(module)) for block in example_blocks(text)]
    assert Counter(line for block in blocks for line in block.splitlines()) == theirs


def test_examples_of_a_library_module_become_a_script_without_prompts_and_output():
    script = doctest_document(inspect.getsource(difflib))
    assert "s = SequenceMatcher(None, " in script
    assert ">>>" not in script
    compile(script, "difflib.doctest.py", "exec")


def test_examples_with_text_between_them_are_separated_by_a_blank_line():
    text = "Make it.\n\n>>> a = 1\n>>> b = 2\n\nUse it.\n\n>>> a + b\n3\n>>> c = 3\n"
    assert example_blocks(text) == ["a = 1\nb = 2\n", "a + b\nc = 3\n"]


def test_doctest_directives_are_left_out_also_unknown_ones():
    assert example_blocks(">>> a = 1  # doctest: +SKIP\n>>> b = 2  # doctest: +NEVER_HEARD_OF\n") == ["a = 1\nb = 2\n"]


def test_imports_that_the_examples_take_for_granted_stand_above_them():
    lines = ["df = pd.DataFrame()", "np.mean(df)", "import seaborn as sns", "sns.lineplot(df)", "df.sum()"]
    source = "def f():\n    '''Do.\n\n" + "".join(f"    >>> {line}\n" for line in lines) + "    '''\n"
    assert doctest_document(source).split("\n")[:4] == ["import numpy as np", "import pandas as pd", "", lines[0]]
    assert assumed_imports("import pandas as pd\npd.DataFrame()\n") == ""


EXAMPLES = "def good():\n    '''G.\n\n" + "".join(f"    >>> x{i} = {i}\n" for i in range(6)) + "    '''\n"


@pytest.mark.parametrize(
    "source",
    [
        "def broken(:\n    '''\n    >>> x = 1\n    '''\n",
        "'''\n>>> x = 1\n'''\n\0",
        "'''>>> x'''\nx = " + "(" * 5000 + ")" * 5000,
        "'''>>> x'''\nx = " + "-" * 100_000 + "1",
    ],
    ids=["syntax error", "null byte", "too many parentheses", "too deep"],
)
def test_a_module_that_cannot_be_parsed_has_no_examples(source):
    assert doctest_document(source + EXAMPLES) == ""


def test_a_docstring_that_doctest_rejects_costs_only_its_own_examples():
    bad = "def bad():\n    '''B.\n\n    >>>no_space\n    >>> y = 1\n  ... ragged\n    '''\n\n"
    assert code_lines(doctest_document(bad + EXAMPLES)) == [f"x{i} = {i}" for i in range(6)]


def test_newer_syntax_gives_no_more_on_a_newer_python():
    assert doctest_document("type Number = int\n\n" + EXAMPLES) == ""
