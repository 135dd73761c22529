"""Turn the `>>>` examples in a module's docstrings into one script, each block below the sentence before it.

They show how a library is *used*, which a completion model should learn; library code shows how it is *made*. Examples
are read, never run; their expected output, doctest's directives and what only IPython understands are left out.
"""

import ast
import doctest
import re
import warnings
from collections.abc import Iterable

from course_utils.data.prose import PARAGRAPH, as_comment

SHORTEST = 5  # lines of code; a shorter document holds little more than its imports
OLDEST_SYNTAX = (3, 11)  # the oldest Python of this course: a newer one must not find more examples than it does
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Docstrings of these libraries take their own short names for granted; a script of its own needs the import.
CONVENTIONS = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "sns": "seaborn"}
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)
# A block with none of these is a text that happens to parse.
ACTIVE = (ast.Call, ast.Assign, ast.Attribute, ast.Subscript, ast.Import, ast.ImportFrom)
# Magics, shell commands, questions; decorators of the Sphinx directive `ipython`.
IPYTHON = re.compile(r"(?m)^[ \t]*(?:[%!?].*|[\w.]+\?{1,2}|@(?:savefig|suppress|ok\w+|verbatim)\b.*)$")

# An f-string whose braces hold its own quote, a backslash or a line end: Python 3.12 reads it, whatever it is told.
NEWER_STRING = re.compile(
    r"(?<![\w\"'])[fF][rR]?([\"'])(?:(?!\1)[^{}\n]|\{\{|\}\}|\{(?:(?!\1)[^{}\n\\])*\})*+\{(?:(?!\1)[^{}\n\\])*(?:\1|[\\\n])"
)


def parsed(source: str) -> ast.Module | None:
    """Return the syntax tree of a module, or None if it is not valid Python."""
    if NEWER_STRING.search(source):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            return ast.parse(source, feature_version=OLDEST_SYNTAX)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def pure_python(code: str) -> str:
    """Return code without what only IPython understands; "" if it is not valid Python, or only words."""
    for attempt in (code, IPYTHON.sub("", code)):
        if tree := parsed(attempt):
            return attempt.strip("\n") + "\n" if any(isinstance(node, ACTIVE) for node in ast.walk(tree)) else ""
    return ""


def docstrings(source: str) -> list[str]:
    """Return the docstrings of a module in the order of the file, or none if it is not valid Python."""
    nodes = [node for node in ast.walk(parsed(source) or ast.Module([], [])) if isinstance(node, DOCUMENTED)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [text for node in nodes if (text := ast.get_docstring(node, clean=False))]


def example_blocks(text: str) -> list[str]:
    """Return the source of the `>>>` examples in a text, in blocks, each below the sentence before it as a comment.

    Text between two examples separates blocks. Where no sentence stands before the first, the text's first one does.
    """
    try:
        # Which directives doctest knows depends on what else this process has imported, so they go first.
        pieces = doctest.DocTestParser().parse(DIRECTIVE.sub("", text))
    except ValueError:  # doctest itself rejects it: no space after a prompt, ragged indentation
        return []
    blocks = [["", ""]]
    for piece in pieces:
        if isinstance(piece, doctest.Example):
            blocks[-1][1] += piece.source
        elif piece.strip():
            blocks.append([as_comment(piece), ""])
    found = [[comment, source] for comment, code in blocks if (source := pure_python(code))]
    if found and not found[0][0]:
        found[0][0] = as_comment(PARAGRAPH.split(text.strip())[0])
    return ["".join(block) for block in found]


def as_script(blocks: Iterable[str]) -> str:
    """Return blocks of examples as one script, below the imports that they take for granted; "" if there are few."""
    script = "\n".join(blocks)
    if sum(not line.startswith("#") for line in script.split("\n") if line.strip()) < SHORTEST:
        return ""
    first = {name: re.search(rf"\bimport .* as {name}\b|\b{name}\.", script) for name in CONVENTIONS}
    assumed = [name for name, found in first.items() if found and found[0] == f"{name}."]
    imports = "".join(f"import {CONVENTIONS[name]} as {name}\n" for name in assumed)
    return f"{imports}\n{script}" if imports else script


def doctest_document(source: str) -> str:
    """Return the examples in a module's docstrings as one script; "" if there are few."""
    return as_script(block for text in docstrings(source) for block in example_blocks(text)) if ">>>" in source else ""
