"""Pages of documentation as scripts: code below the sentence before it, whatever the format, and nothing else."""

import json
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data.doctests import SHORTEST, parsed
from course_utils.data.documentation import documentation_script
from course_utils.data.prose import as_comment

LINES = "".join(f"x{n} = f({n})\n" for n in range(SHORTEST))


def notebook(*cells: tuple[str, str]) -> str:
    return json.dumps({"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]})


MAGICS = "%matplotlib inline\nimport pandas as pd\n!pip install x\nframe = pd.read_csv('f.csv')\nframe.head?\n"
MARKDOWN = """\
Some **bold** words stand before `code_name` here

```{code-cell} ipython3
:tags: [hide]
---
x: 1
---
a = f(1)
```
````{note}
A note about {func}`~pkg.sub.mean` is this.

```python
b = mean(a)
```
````
````markdown
```python
never = f(0)
```
````
- The item prints it:

  ```pycon
  >>> print(b)
  2
  ```
```
$ pip install x
```
```
>>> c = f(3)  # doctest: +SKIP
```
:::{tip}
```py
d = f(4)
```
:::
```python
not python at all
```
```python
unclosed = f(5)
"""
RESTRUCTURED = """\
.. _label:

Grouping the rows
=================

.. ipython:: python
   :okwarning:

   @savefig plot.png
   g = df.groupby('A')

See :meth:`other <pandas.mean>`. Then the ``mean`` of `all groups`_ is a single call::

    g.mean()

.. note::

   With *two* names, :class:`~pandas.MultiIndex` comes back.

   .. code-block:: python

       g = df.groupby(['A', 'B'])

.. code-block:: sql

   SELECT a

.. ipython::

   In [1]: for x in g:
      ...:     print(x)
      ...:
   Out[1]: 3

The shape is a pair.

>>> g.shape()
(2,
3)

Name: x, dtype: int64

>>> g.x()

.. comment
   hidden = f(1)
"""
PAGES = {
    "magics.ipynb": (
        notebook(
            ("raw", ".. _start:"),
            ("markdown", "# Start\n\nIt costs little. We load all of the data about the [flights](https://a.example):"),
            ("code", MAGICS),
            ("code", "%%bash\nls -l"),
            ("markdown", "Then:\n\n```python\nframe.plot()\n```\n\nText in between.\n\n~~~sh\ncd x\n~~~\n"),
            ("code", "frame.sum(\n"),
            ("code", "nothing or 'none'"),
            ("code", "label = (\n    'a'\n    % x\n)\n"),
        ),
        "# We load all of the data about the flights:\nimport pandas as pd\n\nframe = pd.read_csv('f.csv')\n\n"
        "frame.plot()\n\nlabel = (\n    'a'\n    % x\n)\n",
    ),
    "fences.md": (
        MARKDOWN,
        "# Some bold words stand before code_name here\na = f(1)\n\n# A note about mean is this.\nb = mean(a)\n\n"
        "# The item prints it:\nprint(b)\n\nc = f(3)\n\nd = f(4)\n\nunclosed = f(5)\n",
    ),
    "page.rst": (
        RESTRUCTURED,
        "# Grouping the rows\ng = df.groupby('A')\n\n# Then the mean of all groups is a single call:\ng.mean()\n\n"
        "# With two names, MultiIndex comes back.\ng = df.groupby(['A', 'B'])\n\nfor x in g:\n    print(x)\n\n"
        "# The shape is a pair.\ng.shape()\n\ng.x()\n",
    ),
    "short.rst": ("Text:\n\n.. code::\n\n    one = f(1)\n", ""),
    "imports.txt": (
        "Arrays are quick to sum::\n\n    np.sum(x)\n    import numpy as np\n\nNot Python::\n\n    a := 1\n\n"
        f"Names::\n\n{textwrap.indent(LINES, '    ')}",
        f"import numpy as np\n\n# Arrays are quick to sum:\nnp.sum(x)\nimport numpy as np\n\n{LINES}",
    ),
}


@pytest.mark.parametrize("path", PAGES)
def test_code_of_a_page_stands_below_its_sentence(path):
    page, script = PAGES[path]
    assert documentation_script(path, page) == script


@given(
    st.text(st.sampled_from("`~:.>#\\n \\t[](){}*_-=In123abc"), max_size=300),
    st.sampled_from([".rst", ".md"]),
)
def test_any_text_gives_python_or_nothing(text, ending):
    script = documentation_script("a" + ending, text)
    assert parsed(script) is not None


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        (
            "No end.\n\nWe use :func:`~a.b.mean`, ``x_1``, *y* and `docs <b>`__. It takes the mean::",
            "# We use mean, x_1, y and docs. It takes the mean:",
        ),
        ("- One item is here.\n- It calls `f`,\n  and then [g](h).", "# It calls f, and then g."),
        ("## Scatter plots", "# Scatter plots"),
        ("Draw points\n-----------\nThis draws all points in one color.", "# This draws all points in one color."),
        ("Examples\n--------", ""),
        ("[5 rows x 3 columns]", ""),
        ("Name: price, Length: 3, dtype: float64", ""),
        ("word " * 100, ""),
        ("goes on " * 12 + "and stops.", "# " + "goes on " * 10 + "goes\n# on goes on and stops."),
    ],
)
def test_the_sentence_before_a_block_becomes_plain_text(text, comment):
    assert as_comment(text).rstrip("\n") == comment
