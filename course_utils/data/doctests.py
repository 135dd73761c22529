"""Turn the `>>>` examples in a module's docstrings into one script.

Doctest examples show how a library is *used*, which is what a completion model should learn; library code shows how
it is *made*. Examples are only read, never run. Their expected output is left out, and so are doctest's directives.
"""

import ast
import doctest
import re
import warnings

SHORTEST = 5  # lines of code; a shorter document holds little more than its imports
OLDEST_SYNTAX = (3, 11)  # the oldest Python of this course: a newer one must not find more examples than it does
# Docstrings of these libraries take their own short names for granted; a script of its own needs the import.
CONVENTIONS = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
}
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)


def docstrings(source: str) -> list[str]:
    """Return the docstrings of a module, its classes and its functions, in the order they stand in the file.

    A source that is no valid Python has none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source, feature_version=OLDEST_SYNTAX)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [text for node in nodes if (text := ast.get_docstring(node, clean=False))]


def example_blocks(docstring: str) -> list[str]:
    """Return the source of the examples in one docstring; examples with text between them are separate blocks.

    A docstring that doctest itself rejects (no space after a prompt, ragged indentation) has none.
    """
    try:
        # Which directives doctest knows depends on what else this process has imported, so they go first.
        pieces = doctest.DocTestParser().parse(DIRECTIVE.sub("", docstring))
    except ValueError:
        return []
    blocks: list[str] = []
    connected = False
    for piece in pieces:
        if not isinstance(piece, doctest.Example):
            connected = connected and not piece.strip()
        elif connected:
            blocks[-1] += piece.source
        else:
            blocks.append(piece.source)
            connected = True
    return blocks


def assumed_imports(script: str) -> str:
    """Return the import lines of the conventional short names that `script` uses and never imports."""
    missing = (
        line
        for name, line in CONVENTIONS.items()
        if re.search(rf"\b{name}\.", script) and not re.search(rf"\bas {name}\b", script)
    )
    return "".join(f"{line}\n" for line in missing)


def doctest_document(source: str) -> str:
    """Return all doctest examples of a module as one script, blocks separated by a blank line.

    Imports that the examples take for granted stand above them. An empty string says that there is nothing worth a
    document: fewer than `SHORTEST` lines of code.
    """
    if ">>>" not in source:
        return ""
    document = "\n".join(block for text in docstrings(source) for block in example_blocks(text))
    lines = sum(1 for line in document.split("\n") if line.strip())
    if lines < SHORTEST:
        return ""
    imports = assumed_imports(document)
    return f"{imports}\n{document}" if imports else document
