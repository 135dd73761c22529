"""pass@k of programs against tests, as a metric of the library `evaluate` that needs no network and runs in a sandbox.

One file with one class, since `evaluate.load` takes the path of such a file.
"""

from collections import defaultdict
from itertools import islice
from numbers import Integral

import datasets
import evaluate
import numpy as np

from course_utils.sandbox import run_problems


def estimate_pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that at least one of k candidates passes, if c of n drawn candidates passed.

    Unbiased: one minus the share of all choices of k from the n in which none passes (Chen et al., 2021).
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

    A test calls functions of the program by name, with plain values, or compares its constants. Names of Python's own
    stay Python's. The test runs apart from the program, which could forge a pass: what it cannot see (objects of the
    program's classes, generators, changed arguments) makes a program that fails "cannot be judged", not wrong.
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
        """Return (pass@k by name, results by problem: (candidate's number, what became of it)); k is one or several."""
        if not any(predictions):
            raise ValueError("there is nothing to score: predictions holds no program. Give a list for each problem.")
        tests = [_problem(task, reference) for task, reference in enumerate(references)]
        jobs = [(test, program) for test, programs in zip(tests, predictions, strict=True) for program in programs]
        outcomes = iter(run_problems(jobs, workers=num_workers, time_limit=timeout, level=level))
        results = defaultdict(list)
        for task, programs in enumerate(predictions):
            for number, result in enumerate(islice(outcomes, len(programs))):
                passed = result.outcome == "passed"
                text = f"{result.outcome} {result.detail}".strip()
                text = text if result.outcome in ("passed", "cannot be judged") else f"failed: {text}"
                row = {"task_id": task, "completion_id": number, "passed": passed, "result": text}
                results[task].append((number, row))
        fewest, ks = min(map(len, predictions)), [k] if isinstance(k, Integral) else k
        if left_out := ", ".join(f"pass@{k}" for k in ks if k > fewest):
            count = f"{fewest} candidate{'s' * (fewest != 1)}"
            print(f"{left_out} left out: a problem has only {count}. Draw at least as many as k.")
        counts = [(len(rows), sum(row["passed"] for _, row in rows)) for rows in results.values()]
        scored = {k: sum(estimate_pass_at_k(n, c, k) for n, c in counts) / len(counts) for k in ks if k <= fewest}
        return {f"pass@{k}": score for k, score in scored.items()}, results


def _problem(task: int, reference: str) -> dict[str, str]:
    try:
        compile(reference, f"<test {task}>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        raise ValueError(f"the test of problem {task} does not parse ({error}); references are source code.") from error
    return {"task_id": f"code_eval/{task}", "prompt": "", "test": reference}
