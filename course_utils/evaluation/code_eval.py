"""pass@k of programs against tests, as a metric of the library `evaluate` that needs no network and runs in a sandbox.

One file with one class, since `evaluate.load` takes the path of such a file.
"""

import ast
import builtins
from collections import Counter, defaultdict

import datasets
import evaluate
import numpy as np

from course_utils.evaluation import sandbox

_DISPATCHER = "\n\ndef _call(name, *arguments, **keywords):\n    return globals()[name](*arguments, **keywords)\n"


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
        """Return (pass@k by name, results by problem: (candidate's number, what became of it))."""
        jobs = [
            (_problem(task, reference), program + _DISPATCHER)
            for task, (programs, reference) in enumerate(zip(predictions, references, strict=True))
            for program in programs
        ]
        outcomes = iter(sandbox.run_problems(jobs, workers=num_workers, time_limit=timeout, level=level))
        results = defaultdict(list)
        for task, programs in enumerate(predictions):
            for number in range(len(programs)):
                result = next(outcomes)
                row = {"task_id": task, "completion_id": number, "passed": result.outcome == "passed"}
                results[task].append((number, row | {"result": _text(result)}))
        drawn = Counter({task: len(programs) for task, programs in enumerate(predictions)})
        return _pass_at_k(drawn, results, k), results


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
    return result.outcome if result.outcome == "passed" else f"failed: {result.outcome} {result.detail}".strip()


def _problem(task, reference):
    """Turn a test that calls functions by name into one that gets them from the sandbox: `check(candidate)`."""
    try:
        tree = ast.parse(reference)
    except SyntaxError as error:
        raise ValueError(f"the test of problem {task} does not parse ({error}); references are source code.") from error
    free = _free_names(tree)
    misused = sorted(free & _not_called(tree))
    if misused or any(isinstance(node, ast.Global) for node in ast.walk(tree)):
        raise ValueError(
            f"the test of problem {task} uses {', '.join(misused) or 'a global variable'} other than by calling it. A "
            "test can only call the program's functions: import modules and write constants in the test itself."
        )
    if not free:
        raise ValueError(f"the test of problem {task} calls no function of the program: {reference[:60]!r}.")
    header = "import functools\n\n\ndef check(candidate):\n"
    header += "".join(f"    {name} = functools.partial(candidate, {name!r})\n" for name in sorted(free))
    test = header + "".join(f"    {line}\n" for line in ast.unparse(tree).splitlines())
    return {
        "task_id": f"code_eval/{task}",
        "prompt": "",
        "entry_point": "_call",
        "canonical_solution": _DISPATCHER,
        "solution_known": False,
        "test": test,
    }


def _not_called(tree):
    """Return the names that stand elsewhere than as a called function or as an argument, like `check(add)`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    fine = {id(part) for node in calls for part in (node.func, *node.args, *(word.value for word in node.keywords))}
    loaded = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return {node.id for node in loaded if id(node) not in fine}


def _free_names(tree):
    """Return the names that a test uses and does not make itself: functions of the program."""
    used, bound = set(), set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return used - bound
