"""Turn the `>>>` examples in a module's docstrings into one script.

They show how a library is *used*, which a completion model should learn; library code shows how it is *made*. Examples
are read, never run; their expected output and doctest's directives are left out.
"""

import ast
import doctest
import re
import warnings

SHORTEST = 5  # lines of code; a shorter document holds little more than its imports
OLDEST_SYNTAX = (3, 11)  # the oldest Python of this course: a newer one must not find more examples than it does
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Docstrings of these libraries take their own short names for granted; a script of its own needs the import.
CONVENTIONS = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "sns": "seaborn"}
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)


def docstrings(source: str) -> list[str]:
    """Return the docstrings of a module in the order of the file, or none if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source, feature_version=OLDEST_SYNTAX)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    nodes = sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0))
    return [text for node in nodes if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node, clean=False))]


def example_blocks(docstring: str) -> list[str]:
    """Return the source of a docstring's examples, in blocks: text between two examples separates them."""
    try:
        # Which directives doctest knows depends on what else this process has imported, so they go first.
        pieces = doctest.DocTestParser().parse(DIRECTIVE.sub("", docstring))
    except ValueError:  # doctest itself rejects it: no space after a prompt, ragged indentation
        return []
    blocks = [""]
    for piece in pieces:
        if isinstance(piece, doctest.Example):
            blocks[-1] += piece.source
        elif piece.strip():
            blocks.append("")
    return [block for block in blocks if block]


def doctest_document(source: str) -> str:
    """Return a module's examples as one script, below the imports that they take for granted; "" if there are few."""
    if ">>>" not in source:
        return ""
    script = "\n".join(block for text in docstrings(source) for block in example_blocks(text))
    if sum(bool(line.strip()) for line in script.split("\n")) < SHORTEST:
        return ""
    assumed = [n for n in CONVENTIONS if re.search(rf"\b{n}\.", script) and not re.search(rf"\bas {n}\b", script)]
    imports = "".join(f"import {CONVENTIONS[name]} as {name}\n" for name in assumed)
    return f"{imports}\n{script}" if imports else script
