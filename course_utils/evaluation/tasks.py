"""Comment-to-code tasks: does a completion write the call that a comment asks for? Syntax is compared, nothing is run.

The tasks are in tasks.json, which is its own data card and says how the patterns of right answers are written.
"""

import ast
import json
import re
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from course_utils.models.prompts import TUTORIAL_PROMPTS

_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
_SIGNATURES, _WORDS = _DATA["signatures"], {kind: frozenset(text.split()) for kind, text in _DATA["words"].items()}
Task = namedtuple("Task", "name library prompt accept free")  # accept: patterns; free: keywords that may be added
Judgement = namedtuple("Judgement", "function arguments")  # is the right function called on the right object, and how?


def load_tasks() -> tuple[Task, ...]:
    """Return the course's tasks: prompts that end with a comment, and patterns of the right answers."""
    tasks = []
    for row in _DATA["tasks"]:
        prompt = "\n".join([*row["prompt"], ""]) if "prompt" in row else TUTORIAL_PROMPTS[row["name"]]
        free = _WORDS["free"].union(row.get("free", "").split())
        tasks.append(Task(row["name"], row["library"], prompt, tuple(row["accept"]), free))
    return tuple(tasks)


def judge(task: Task, completion: str) -> Judgement:
    """Judge the first statement, and later ones that it prepares; what is not Python is wrong, and never an error."""
    function = arguments = False
    for pattern in task.accept:
        wanted = _plain(ast.parse(pattern).body[0], {}, frozenset())
        form = re.compile(re.sub(r"\b_\b", ".+", re.escape(wanted)), re.DOTALL)
        free = task.free.difference(re.findall(r"\w+(?==)", wanted))
        with suppress(RecursionError):
            for text in _answers(task.prompt, completion, free):
                arguments |= form.fullmatch(text) is not None
                function |= arguments or _functions(wanted) <= _functions(text)
    return Judgement(function, arguments)


def score_tasks(complete: Callable[[str], str], tasks: Sequence[Task] = ()) -> pd.DataFrame:
    """Complete every prompt; return one row per task: its name and library, the completion, `function`, `arguments`."""
    texts = [(task, complete(task.prompt)) for task in tqdm(tasks or load_tasks(), unit=" tasks")]
    rows = [(task.name, task.library, text, *judge(task, text)) for task, text in texts]
    return pd.DataFrame(rows, columns=["name", "library", "completion", *Judgement._fields])


def _answers(prompt: str, completion: str, free: frozenset[str]) -> Iterator[str]:
    """Yield the first statement in plain form, and a later one that uses all names assigned before, inserted there."""
    lines, first, body, unused = completion[:4000].splitlines(keepends=True)[:40], prompt.count("\n"), [], set()
    for end in range(len(lines), 0, -1):  # a model may stop in the middle of a line
        # Refused: bad syntax; null bytes and halves of characters; deep nesting. Warned of: "\d", `1 is 1`.
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError), warnings.catch_warnings(action="ignore"):
            body = body or ast.parse(prompt + "".join(lines[:end])).body
    names = dict.fromkeys(re.findall(_DATA["axes"], prompt + completion), "(axes)")
    for statement in [s for s in body if s.lineno > first and not isinstance(s, ast.Import | ast.ImportFrom)][:5]:
        unused -= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if not unused:
            yield _plain(statement, names, free)
        if not unused and isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name | ast.Tuple):
            yield _plain(statement.value, names, free - {"inplace"})  # which would return None
        match statement:
            case ast.Expr(ast.Call(f)) | ast.Assign(_, ast.Call(f)) if _plain(f, names, free) in _WORDS["preparation"]:
                continue
            case ast.Assign([ast.Name(n)], value) | ast.Expr(ast.Call(ast.Attribute(ast.Name(n), "fit")) as value):
                names[n] = _plain(value, names, free)[:1000]  # fit returns its object
                unused.add(n)
            case _:
                return


def _plain(node: ast.AST | None, names: Mapping[str, str], free: frozenset[str]) -> str:
    """Write code so that what means the same reads the same: `df["a"]` as `df.a`, arguments by name and sorted, ..."""

    def plain(*nodes: ast.AST | None) -> str:
        return ", ".join(_plain(node, names, free) for node in nodes)

    match node:
        case ast.Expr(value) | ast.Return(value) | ast.If(value) | ast.FormattedValue(value):
            return plain(value)
        case ast.BinOp(ast.Constant(str()), ast.Mod(), value):  # "accuracy: %.2f" % value
            return plain(value)
        case ast.Name(name):
            return names.get(name, name)
        case ast.Attribute(value, name):
            owner, short = plain(value), name.removeprefix("set_")
            known = (short != name) == (short in _WORDS["pyplot"])  # there is neither ax.xlabel nor ax.set_plot
            return f"plt.{short}" if known and owner == "(axes)" else f"{owner}.{name}"
        case ast.Subscript(value, part):
            inside = plain(*part.elts if isinstance(part, ast.Tuple) else [part])
            name = inside.strip("'")
            return f"{plain(value)}.{name if name.isidentifier() and name != inside else f'__getitem__({inside})'}"
        case ast.List(parts) | ast.Tuple(parts):  # of one text: that text, such as the name of a column
            return plain(*parts) if [type(getattr(p, "value", 0)) for p in parts] == [str] else f"[{plain(*parts)}]"
        case ast.Dict(keys, values):
            pairs = zip(keys, values, strict=True)
            return plain(ast.Call(ast.Name("dict"), [], [ast.keyword(getattr(k, "value", "**"), v) for k, v in pairs]))
        case ast.JoinedStr(parts) | ast.Call(ast.Name("print" | "display" | "float" | "int" | "list" | "round"), parts):
            return plain(*[part for part in parts if not isinstance(part, ast.Constant)] or parts)
        case ast.Call(ast.Attribute(value, name)) if name in _WORDS["endings"]:
            return plain(value)
        case ast.Call(called, arguments, keywords):
            function = plain(called)
            known = _SIGNATURES.get(function) or _SIGNATURES.get("." + function.rpartition(".")[2], "")
            defaults = dict(word.partition("=")[::2] for word in known.split())
            given = dict(zip([*defaults, *"0123456789"], map(plain, arguments), strict=False))
            given |= {keyword.arg or "**": plain(keyword.value) for keyword in keywords}
            texts = (f"{n}={text}" for n, text in given.items() if n not in free and defaults.get(n) != text)
            return f"{function}({', '.join(sorted(texts))})"
        case ast.Constant(value):
            return repr(value).removesuffix(".0")
    parts = [*ast.iter_child_nodes(node)] if node else []
    return type(getattr(node, "op", node)).__name__ + f"({plain(*parts)})" * bool(parts)


def _functions(text: str) -> set[str]:
    """Return the functions that a plain text calls, and its outer chain with its object: `df.groupby!.mean!`."""
    text = outer = re.sub(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", "", text)
    while (shorter := re.sub(r"\([^()]*\)", "!", outer)) != outer:
        outer = shorter
    return {re.sub(r"\.\w+\b(?!!|$)", "", outer), *re.findall(r"\b(?!dict\b)\w+(?=\()", text)}
