"""Turn a page of documentation into one script: its blocks of Python code, each below the sentence before it.

Pages are notebooks, reStructuredText and Markdown (also MyST). What is no Python, output included, is left out; so is a
block that does not parse. This is no full reader of these formats: it knows blocks, not what they look like on a page.
"""

import json
import re
import textwrap
from collections.abc import Iterator

from course_utils.data.doctests import as_script, example_blocks, pure_python
from course_utils.data.prose import as_comment

ENDINGS = (".ipynb", ".rst", ".txt", ".md", ".myst")
LANGUAGES = {"python", "python3", "py", "ipython", "ipython3", "pycon"}
CODE = {"code", "code-block", "sourcecode", "code-cell", "ipython", "jupyter-execute", "plot", "testcode"}
# Directives whose content is text of the page.
FRAMES = {"note", "tip", "hint", "important", "warning", "admonition", "dropdown", "tab-set", "tab-item", "container"}

DIRECTIVE = re.compile(r"[ \t]*\.\.(?:[ \t]+([\w-]+)::[ \t]*(\S*)|[ \t]|$)")  # name and argument, or a comment
FENCE = re.compile(r"[ \t]*(`{3,}|~{3,}|:{3,})[ \t]*(.*)$")
OPTIONS = re.compile(r"\A(?:[ \t]*:[\w-]+:.*\n|[ \t]*\n)*(?:---\n(?:.*\n)*?---\n)?")
IPYTHON_SESSION = re.compile(r"^[ \t]*In \[[\d*]*\]:", re.MULTILINE)
IPYTHON_INPUT = re.compile(r"^[ \t]*(?:In \[[\d*]*\]|\.{3,}):[ ]?(.*)$", re.MULTILINE)


def documentation_script(path: str, text: str) -> str:
    """Return the code of a page, whose format the ending of `path` tells; "" if it has little or cannot be read."""
    pieces = {".ipynb": _notebook, ".md": _markdown, ".myst": _markdown}.get(path[path.rfind(".") :], _restructured)
    return as_script(block for prose, code in pieces(text) for block in _blocks(prose, code))


def _blocks(prose: str, code: str) -> list[str]:
    """Return the Python in a block of code, below comments: as it is, or from a session with prompts and output."""
    code = textwrap.dedent(OPTIONS.sub("", code))
    if ">>>" in code:
        return example_blocks(f"{prose}\n\n{code}")
    if IPYTHON_SESSION.search(code):
        code = "\n".join(IPYTHON_INPUT.findall(code))
    return [as_comment(prose) + source] if (source := pure_python(code)) else []


def _is_python(kind: str, argument: str = "") -> bool:
    return kind in LANGUAGES or (kind in CODE and argument in {"", *LANGUAGES})


def _notebook(text: str) -> Iterator[tuple[str, str]]:
    """Yield (text before it, code) for the code cells, and the blocks of code in the text cells."""
    try:
        page = json.loads(text)
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in page["cells"]]
        language = page["metadata"].get("kernelspec", {}).get("language", "python")
    except (ValueError, KeyError, TypeError, AttributeError):  # not a notebook, or one of an old format
        return
    prose = ""
    for kind, source in cells if language == "python" else ():
        if kind == "code":
            yield prose, source
            prose = ""
        elif kind == "markdown":
            *blocks, (prose, _) = _markdown(source)
            yield from blocks


def _markdown(text: str) -> Iterator[tuple[str, str]]:
    """Yield (text before it, code) for the fenced blocks, those in the frames of MyST included, then the last text."""
    lines, prose, at = text.split("\n"), [], 0
    while at < len(lines):
        at += 1
        if not (fence := FENCE.match(lines[at - 1])):
            prose.append(lines[at - 1])
            continue
        mark, (kind, argument) = fence[1], (*re.findall(r"[\w-]+", fence[2].lower()), "", "")[:2]
        start = at
        while at < len(lines) and not re.fullmatch(rf"[ \t]*{mark}{mark[0]}*[ \t]*", lines[at]):
            at += 1
        body, at = "\n".join(lines[start:at]), at + 1
        if kind in FRAMES and "{" in fence[2]:
            yield from _markdown(body)
            prose = []
        elif _is_python(kind, argument) or (not kind and ">>>" in body):
            yield "\n".join(prose), body + "\n"
            prose = []
    yield "\n".join(prose), ""


def _restructured(text: str) -> Iterator[tuple[str, str]]:
    """Yield (text before it, code) for code directives, literal blocks (after `::`) and paragraphs with `>>>`."""
    lines, prose, at = text.split("\n"), [], 0
    while at < len(lines):
        line, start = lines[at], at
        at += 1
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith(">>>"):
            while at < len(lines) and lines[at].strip():
                at += 1
            yield "\n".join(prose), "\n".join(lines[start:at]) + "\n"
            prose = []
            continue
        directive = DIRECTIVE.match(line)
        if not directive or directive[1] in FRAMES:
            prose += [] if directive else [line]
            if directive or not line.rstrip().endswith("::"):
                continue
        while at < len(lines) and (not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) > indent):
            at += 1
        if not directive or (directive[1] and _is_python(directive[1], directive[2])):
            yield "\n".join(prose), "\n".join(lines[start + 1 : at]) + "\n"
            prose = []
