"""Doctest extraction: the script holds exactly the source of the examples, below the sentences before them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data.doctests import SHORTEST, doctest_document, example_blocks

STATEMENTS = ("x = 1", "for row in table:\n    if row:\n\n        print(row)", "text = 'not a prompt: >>> x'")
PROSE = st.text(st.characters(categories=("L", "N", "Zs"), include_characters=".,:;()"), max_size=40)


def code_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


@st.composite
def docstring_and_statements(draw) -> tuple[str, list[str]]:
    indent = draw(st.sampled_from(["", "    ", "        "]))
    parts, statements = [draw(PROSE)], draw(st.lists(st.sampled_from(STATEMENTS), max_size=6))
    for statement in statements:
        parts += ["", draw(PROSE), ""] if draw(st.booleans()) else []
        first, *rest = statement.split("\n")
        parts += [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
        parts += [draw(PROSE.filter(str.strip)), ""] if draw(st.booleans()) else []  # what the example prints
    return "\n".join(indent + line if line.strip() else line for line in parts), statements


@given(st.lists(docstring_and_statements(), max_size=5))
def test_the_script_is_exactly_the_source_of_the_examples(functions):
    source = "\n".join(f"def f{i}():\n    {text!r}\n" for i, (text, _) in enumerate(functions))
    wanted = [line for _, statements in functions for statement in statements for line in code_lines(statement)]
    assert code_lines(doctest_document(source)) == (wanted if len(wanted) >= SHORTEST else [])


@pytest.mark.parametrize(
    ("docstring", "blocks"),
    [
        ("Make.\n\n>>> a = 1\n>>> b = 2\n\nUse.\n\n>>> a + b\n3\n>>> c = 3\n", ["a = 1\nb = 2\n", "a + b\nc = 3\n"]),
        (
            "Add two numbers.\n\nA text\n\n>>> f(1, 2)\n3\n\nIt takes all numbers:\n\n>>> f(1j, 2)\n",
            ["# Add two numbers.\nf(1, 2)\n", "# It takes all numbers:\nf(1j, 2)\n"],
        ),
        (">>> %time x = 1\n>>> print 1\n\nText.\n\n>>> f(1)\n>>> 2\n", ["f(1)\n2\n"]),
        (">>> a = 1  # doctest: +SKIP\n>>> b = 2  # doctest: +NEVER_HEARD_OF\n", ["a = 1\nb = 2\n"]),
        (">>>no_space\n>>> y = 1\n  ... ragged\n", []),
    ],
)
def test_text_separates_blocks_and_directives_are_left_out(docstring, blocks):
    assert example_blocks(docstring) == blocks


def test_imports_that_the_examples_take_for_granted_stand_above_them():
    lines = ["df = pd.DataFrame()", "np.mean(df)", "import seaborn as sns", "sns.lineplot(df)", "df.sum()"]
    source = "def f():\n    '''Do.\n\n" + "".join(f"    >>> {line}\n" for line in lines) + "    '''\n"
    assert doctest_document(source).split("\n")[:4] == ["import numpy as np", "import pandas as pd", "", lines[0]]


def test_a_module_that_cannot_be_parsed_has_no_examples():
    examples = "def good():\n    '''G.\n\n" + "".join(f"    >>> x{i} = {i}\n" for i in range(6)) + "    '''\n"
    assert code_lines(doctest_document(examples)) == [f"x{i} = {i}" for i in range(6)]
    newer = "type N = int\n", 'f"{a["b"]}"', "f\"{{{a}}} {'\\n'.join(b)}\"", "f'{\n1}'"  # a newer Python reads these
    for code in ("def broken(:\n", "\0", "x = " + "(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1", *newer):
        assert doctest_document(examples + code) == ""
