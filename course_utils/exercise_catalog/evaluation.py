"""Exercises of notebook 07: pass@k, calibration, a programming problem of your own."""

import random
from collections.abc import Mapping
from typing import Any

from course_utils.exercises import Exercise


def problem(value: Any) -> list[str]:
    """Say what keeps a programming problem from being usable: its columns, its test, or what the test lets pass."""
    from course_utils.evaluation.problems import check_problem
    from course_utils.sandbox.running import run_problem

    if not isinstance(value, Mapping):
        return ["Give a dictionary with the keys task_id, prompt, entry_point, canonical_solution and test."]
    try:
        check_problem(value)
        solved = run_problem(value, value["canonical_solution"])
        empty = run_problem(value, "\n    return None\n")
    except ValueError as error:
        return [str(error)]
    findings = []
    if solved.outcome != "passed":
        findings.append(f"Your own solution does not pass: {solved.outcome}. {solved.detail}")
    if empty.outcome == "passed":
        findings.append("A function that returns None passes, too: the test needs asserts that it fails.")
    return findings


def calibration_error(confidences: list[float], hits: list[int]) -> float:
    """Return the mean gap between confidence and share of hits over ten groups, each weighted by its size."""
    groups: dict[int, list[tuple[float, int]]] = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        groups.setdefault(min(int(confidence * 10), 9), []).append((confidence, hit))
    return sum(abs(sum(c for c, _ in group) - sum(h for _, h in group)) for group in groups.values()) / len(confidences)


def _counts(rng: random.Random) -> tuple[int, int, int]:
    n = rng.randint(1, 12)
    return n, rng.randint(0, n), rng.randint(1, n)


def _answers(rng: random.Random) -> tuple[list[float], list[int]]:
    count = rng.randint(1, 8)
    inside = [(10 * rng.randint(0, 9) + rng.randint(1, 9)) / 100 for _ in range(count)]
    return [rng.choice((c, c, c, 0.0, 1.0)) for c in inside], [rng.randint(0, 1) for _ in range(count)]


def _inside_a_group(confidence: float) -> bool:
    """Whether every way to compute the groups agrees: 0.6 lies below `np.linspace(0, 1, 11)[6]`, and on 6 / 10."""
    return confidence in (0, 1) or (0 < confidence < 1 and 0.05 < confidence * 10 % 1 < 0.95)


EXERCISES = (
    Exercise(
        id="07.pass_at_k",
        title="pass@k from counts",
        reference="course_utils.evaluation.metrics:estimate_pass_at_k",
        examples=((2, 1, 1), (2, 1, 2), (10, 3, 5)),
        edge_cases=((5, 0, 1), (5, 5, 1), (5, 4, 2), (1, 1, 1)),
        random_arguments=_counts,
        fair=lambda n, c, k: 0 <= c <= n and 1 <= k <= n,
        hints=(
            "How many ways are there to draw k of n candidates? `math.comb(n, k)`.",
            "How many of these draws contain only wrong candidates? There are n - c wrong ones.",
            "pass@k is 1 - comb(n - c, k) / comb(n, k). If fewer than k are wrong, no draw is all wrong: 1.",
        ),
    ),
    Exercise(
        id="07.calibration_error",
        title="How wrong is the confidence?",
        reference="course_utils.exercise_catalog.evaluation:calibration_error",
        examples=(([0.95, 0.85, 0.85], [1, 1, 0]), ([0.55, 0.55], [0, 1])),
        edge_cases=(([1.0], [1]), ([0.0, 0.05], [0, 0]), ([0.92, 1.0], [1, 0])),
        random_arguments=_answers,
        fair=lambda confidences, hits: (
            len(confidences) == len(hits) > 0 and set(hits) <= {0, 1} and all(map(_inside_a_group, confidences))
        ),
        hints=(
            "Sort the answers into ten groups by `min(int(confidence * 10), 9)`; 1.0 belongs to the last one.",
            "The gap of a group is the distance between its mean confidence and its share of hits.",
            "Weigh each gap with the group's share of all answers: sum(len(group) * gap) / len(confidences).",
        ),
    ),
    Exercise(
        id="07.problem",
        title="A problem of your own",
        examine=problem,
        hints=(
            "`prompt` ends after the docstring, `canonical_solution` goes on from there, indented by four spaces.",
            "`test` is source code: def check(candidate): with asserts that call `candidate`.",
        ),
    ),
)
