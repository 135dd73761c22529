"""pass@k of programs against tests, as a metric of the library `evaluate` that needs no network and runs in a sandbox.

One file with one class, since `evaluate.load` takes the path of such a file.
"""

import ast
import builtins
import re
import symtable
from collections import Counter, defaultdict
from numbers import Integral

import datasets
import evaluate
import numpy as np

from course_utils.sandbox import running as sandbox

_DISPATCHER = """

def {call}(name, /, *arguments, **keywords):
    if name not in {call}.__globals__:
        raise NameError("the program does not define " + name)
    return {call}.__globals__[name](*arguments, **keywords)
"""
_PLAIN = frozenset().union(*map(dir, (int, float, complex, str, bytes, list, tuple, set, frozenset, dict)))
_CALL = re.compile(r"(^|; )candidate\('(\w+)'(?:, |(?=\)))")  # where the sandbox tells the last call


def estimate_pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that at least one of k candidates passes, if c of n drawn candidates passed.

    Unbiased: one minus the share of all choices of k from the n in which none passes (Chen et al., 2021). A product of
    factors below 1, so no number grows large. Raises `ValueError` unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(
            f"pass@{k} from {c} of {n} candidates is not defined: k must be between 1 and the number of candidates, "
            "and no more can pass than were drawn. Draw more candidates, or choose a smaller k."
        )
    if n - c < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))


class CodeEval(evaluate.Metric):
    """Share of the problems that k of the candidate programs are expected to solve.

    A test calls functions of the program by name, with plain values. It sees neither the program's constants, modules
    and classes, nor what a function does to its arguments: it runs apart from the program, which could forge a pass.
    A builtin name that a program defines anew is the program's in an assert of builtins only, like `max(1, 2) == 2`,
    and in a test that calls nothing else; beside a function of the program it is Python's, like `abs(area(1) - 3) < 1`.
    What a test cannot judge is refused where the test shows it: methods of what a program returns, and arguments that
    it changed. A program that returns a generator or an object of a class of its own fails; its result says so.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description="pass@k: the chance that one of k candidates passes the tests, estimated without bias.",
            citation="Chen et al., Evaluating Large Language Models Trained on Code, 2021",
            inputs_description="predictions: a list of programs for each problem; references: its test, source code.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, k=(1, 10, 100), num_workers=None, timeout=3.0, level=None):
        """Return (pass@k by name, results by problem: (candidate's number, what became of it)); k is one or several.

        Raises `ValueError` for a test that cannot be used, and if there is no program at all.
        """
        if not any(predictions):
            raise ValueError("there is nothing to score: predictions holds no program. Give a list for each problem.")
        tests = [_Test(task, reference) for task, reference in enumerate(references)]
        jobs = [test.job(program) for test, programs in zip(tests, predictions, strict=True) for program in programs]
        outcomes = iter(sandbox.run_problems(jobs, workers=num_workers, time_limit=timeout, level=level))
        results = defaultdict(list)
        for task, programs in enumerate(predictions):
            for number in range(len(programs)):
                result = next(outcomes)
                row = {"task_id": task, "completion_id": number, "passed": result.outcome == "passed"}
                results[task].append((number, row | {"result": _text(result)}))
        drawn = Counter({task: len(programs) for task, programs in enumerate(predictions)})
        return _pass_at_k(drawn, results, [k] if isinstance(k, Integral) else k), results


def _pass_at_k(drawn, results, ks):
    fewest = min(drawn.values())
    left_out = [k for k in ks if k > fewest]
    if left_out:
        names = ", ".join(f"pass@{k}" for k in left_out)
        count = f"{fewest} candidate{'s' * (fewest != 1)}"
        print(f"{names} left out: a problem has only {count}. Draw at least as many as k.")
    passed = {task: sum(row["passed"] for _, row in rows) for task, rows in results.items()}
    return {
        f"pass@{k}": sum(estimate_pass_at_k(n, passed.get(task, 0), k) for task, n in drawn.items()) / len(drawn)
        for k in ks
        if k <= fewest
    }


def _text(result):
    """Say what became of a program; a call through the dispatcher reads as the test has it."""
    detail = _CALL.sub(r"\1\2(", result.detail, count=1)
    return result.outcome if result.outcome == "passed" else f"failed: {result.outcome} {detail}".strip()


class _Test:
    """A test that calls functions by name, made into one that gets them from the sandbox: `check(candidate)`."""

    def __init__(self, task: int, reference: str) -> None:
        self.task = f"code_eval/{task}"
        try:
            tree = ast.parse(reference)
        except SyntaxError as error:
            raise ValueError(
                f"the test of problem {task} does not parse ({error}); references are source code."
            ) from error
        self.source = ast.unparse(tree)
        self.names, self.unclear = _free_names(tree)
        if any(isinstance(node, ast.alias) and node.name == "*" for node in ast.walk(tree)):
            raise ValueError(f"the test of problem {task} has an import of *; let it import what it needs by name.")
        misused = sorted(self.names & _not_called(tree))
        if misused or any(isinstance(node, ast.Global) for node in ast.walk(tree)):
            raise ValueError(
                f"the test of problem {task} uses {', '.join(misused) or 'a global variable'} other than by calling "
                "it. A test can only call the program's functions: import modules and write constants in the test "
                "itself."
            )
        unfit = _unfit(tree, self.names)
        if unfit:
            raise ValueError(
                f"the test of problem {task} {unfit}. It sees only the plain values that a function returns: test "
                "these, or leave the problem out."
            )
        if not self.names and not self.unclear:
            raise ValueError(f"the test of problem {task} calls no function of the program: {reference[:60]!r}.")

    def job(self, program: str) -> tuple[dict, str]:
        """Return the problem for the sandbox, and the program with a function that calls its others by name."""
        names = self.names | (self.unclear & _defined(program) if self.unclear else set())
        call = "_call"
        while call in program or call in self.source:
            call += "_"
        lines = [
            f"{name} = __import__('functools').partial({call}, {name!r})" for name in sorted(names or self.unclear)
        ]
        dispatcher = _DISPATCHER.format(call=call)
        problem = {
            "task_id": self.task,
            "prompt": "",
            "entry_point": call,
            "canonical_solution": dispatcher,
            "solution_known": False,
            "test": f"def check({call}):\n" + "".join(f"    {line}\n" for line in lines + self.source.splitlines()),
        }
        return problem, program + dispatcher


def _unfit(tree, names):
    """Say what a test wants to see besides what the functions called `names` return; nothing if all is well."""
    nodes = list(ast.walk(tree))
    calls = {id(node): node for node in nodes if isinstance(node, ast.Call) and _id(node.func) in names}
    made = {
        _id(target)
        for node in nodes
        if isinstance(node, ast.Assign) and id(node.value) in calls
        for target in node.targets
    }
    sent = {id(argument) for call in calls.values() for argument in call.args}
    asserted = [name for node in nodes if isinstance(node, ast.Assert) for name in _loaded(node)]
    checked = {name.id for name in asserted if id(name) not in sent}
    for node in nodes:
        result = isinstance(node, ast.Attribute) and (id(node.value) in calls or _id(node.value) in made - {None})
        if result and node.attr not in _PLAIN:
            return f"uses .{node.attr} of what a function of the program returned"
        if isinstance(node, ast.Expr) and id(node.value) in calls:
            for name in checked.intersection(map(_id, node.value.args)):
                return f"calls {node.value.func.id} for what it does to {name}"
    return ""


def _id(node):
    return getattr(node, "id", None)


def _defined(program):
    """Return the names that a program defines at its top; none if it is no Python."""
    try:
        symbols = symtable.symtable(program, "<program>", "exec").get_symbols()
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # also null bytes, and what is nested too deeply
        return set()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _not_called(tree):
    """Return the names that stand elsewhere than as a called function or as an argument, like `check(add)`."""
    fine = {id(name) for name in _called(tree)}
    return {name.id for name in _loaded(tree) if id(name) not in fine}


def _called(tree):
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    parts = (part for node in calls for part in (node.func, *node.args, *(word.value for word in node.keywords)))
    return [part for part in parts if isinstance(part, ast.Name)]


def _loaded(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


def _free_names(tree):
    """Return the names that a test uses and does not make itself, and builtin names that may be the program's.

    If the test calls other functions of the program, those are the ones in asserts of builtins only: else they would
    test Python. Elsewhere they are the test's tools, and a program that redefines them could forge a pass.
    """
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    python = set(dir(builtins)) - bound
    free = {name.id for name in _loaded(tree)} - bound - python
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    places = [node for node in asserts if {name.id for name in _loaded(node)} <= python] if free else [tree]
    return free, {name.id for place in places for name in _called(place)} & python
