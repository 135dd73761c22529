"""Turn a page of documentation into one script: its blocks of Python code, each below the sentence before it.

Pages are notebooks, Markdown (also MyST) and reStructuredText. Output, other languages and blocks that do not parse are
left out. This is no full reader of these formats: it knows where code begins and ends.
"""

import json
import re
import textwrap
from collections.abc import Iterator

from course_utils.data.doctests import as_script, example_blocks, pure_python
from course_utils.data.prose import as_comment

MARKDOWN = (".ipynb", ".md", ".myst")
ENDINGS = (*MARKDOWN, ".rst", ".txt")
LANGUAGES = {"python", "python3", "py", "ipython", "ipython3", "pycon"}
# Directives whose content is Python if they name no language, and those whose content is text of the page.
CODE = {"code", "code-block", "sourcecode", "code-cell", "jupyter-execute", "plot", "testcode", "doctest"}
FRAMES = {"note", "tip", "hint", "important", "warning", "admonition", "dropdown", "tab-set", "tab-item", "container"}

FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
DIRECTIVE = re.compile(r"[ \t]*(\.\.)(?:[ \t]+(?:([\w-]+::.*)|.*))?$")  # or a comment, which has a body, too
OPTIONS = re.compile(r"\A(?:[ \t]*:[\w-]+:.*\n|[ \t]*\n)*(?:---\n(?:.*\n)*?---\n)?")
IPYTHON_INPUT = re.compile(r"^[ \t]*(?:In \[[\d*]*\]|\.{3,}):[ ]?(.*)$", re.MULTILINE)


def documentation_script(path: str, text: str) -> str:
    """Return the code of a page, whose format the ending of `path` tells; "" if it has little."""
    lines = (_as_markdown(text) if path.endswith(".ipynb") else text).split("\n")
    return as_script(block for piece in _pieces(lines, path.endswith(MARKDOWN)) for block in _blocks(*piece))


def _as_markdown(notebook: str) -> str:
    """Return the cells of a notebook, in the format of today, as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]
    return "\n\n".join(f"`````python\n{text}\n`````" if kind == "code" else text for kind, text in cells)


def _pieces(lines: list[str], markdown: bool) -> Iterator[tuple[str, str]]:
    """Yield (text before it, code) for every block of code; changes `lines`."""
    prose, at = [], 0
    while at < len(lines):
        line = lines[at]
        opening = (FENCE if markdown else DIRECTIVE).match(line)
        prompt = not opening and line.lstrip().startswith(">>>")
        if not opening and not prompt:
            prose.append(line)
            if markdown or not line.rstrip().endswith("::"):
                at += 1
                continue
        over = rf"[ \t]{{0,{len(line) - len(line.lstrip())}}}\S"  # as a rule, a block ends where the indentation does
        over = r"[ \t]*$" if prompt else rf"[ \t]*{opening[1]}+[ \t]*$" if markdown else over
        end = next((n for n in range(at + 1, len(lines)) if re.match(over, lines[n])), len(lines))
        body, after = lines[at + (not prompt) : end], end + (markdown and not prompt)
        words = set(re.findall(r"[\w-]+", (opening[2] or "").lower())) if opening else set()
        if words & FRAMES:
            lines[at:after] = body
            continue
        bare = words <= CODE if words else not opening or (markdown and ">>>" in "".join(body))
        if words & LANGUAGES or bare:
            yield "\n".join(prose), "\n".join([*body, ""])
            prose = []
        at = after


def _blocks(prose: str, code: str) -> list[str]:
    """Return the Python in a block of code, below comments: as it is, or from a session with prompts and output."""
    code = textwrap.dedent(OPTIONS.sub("", code))
    if ">>>" in code:
        return example_blocks(f"{prose}\n\n{code}")
    code = "\n".join(IPYTHON_INPUT.findall(code)) or code
    return [as_comment(prose) + source] if (source := pure_python(code)) else []
