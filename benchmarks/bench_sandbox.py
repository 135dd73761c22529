"""328 sandboxed runs of small programs, against the usual way: a fresh process each for program and test together.

The usual way has no sandbox: the program shares a process with its test, and can forge the verdict. It starts each
process with the program and the test as one text, and reads the verdict from a queue. Both use all cores.
"""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

from course_utils.sandbox import run_problem, run_problems
from course_utils.sandbox.running import Level, probe

TARGETS = {}
TIME_LIMIT = 30.0
PROBLEMS = 164
TEST = "def check(candidate):\n" + "".join(f"    assert candidate([{n}, 2, 3], {n}) == {5 + n + n}\n" for n in range(7))


def problems() -> list[dict[str, str]]:
    prompt = "from typing import List\n\n\ndef total_{n}(numbers: List[int], start: int) -> int:\n    '''Sum.'''\n"
    return [
        {
            "task_id": f"bench/{n}",
            "prompt": prompt.format(n=n),
            "entry_point": f"total_{n}",
            "canonical_solution": "    return sum(numbers) + start\n",
            "test": TEST,
        }
        for n in range(PROBLEMS)
    ]


def jobs() -> list[tuple[dict[str, str], str]]:
    return [(p, completion) for p in problems() for completion in (p["canonical_solution"], "    return None\n")]


def _run_together(text: str, verdicts) -> None:
    try:
        exec(text, {})
        verdicts.put("passed")
    except BaseException:
        verdicts.put("failed")


def in_one_process(job: tuple[dict[str, str], str]) -> bool:
    problem, completion = job
    text = f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})\n"
    context = multiprocessing.get_context()
    verdicts = context.SimpleQueue()
    process = context.Process(target=_run_together, args=(text, verdicts))
    process.start()
    process.join(TIME_LIMIT)
    if process.is_alive():
        process.kill()
    return not verdicts.empty() and verdicts.get() == "passed"


def usual_way(all_jobs: list) -> list[bool]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(in_one_process, all_jobs))


def seconds(way, all_jobs: list) -> float:
    start = time.perf_counter()
    passed = way(all_jobs)
    if passed != [True, False] * PROBLEMS:
        raise RuntimeError(f"wrong verdicts: {sum(passed)} passed")
    return time.perf_counter() - start


def run() -> list[dict]:
    working = [level for level, missing in probe().items() if missing is None and level != Level.LIMITS]
    all_jobs = jobs()
    for level in working:
        run_problem(*all_jobs[0], level=level)
    usual = seconds(usual_way, all_jobs)
    rows = []
    for level in working:

        def ours(all_jobs: list, level: Level = level) -> list[bool]:
            results = run_problems(all_jobs, level=level, time_limit=TIME_LIMIT, progress=False)
            return [result.outcome == "passed" for result in results]

        own = seconds(ours, all_jobs)
        name = f"{len(all_jobs)} programs, {level}"
        rows.append({"name": name, "ours": own, "theirs": usual, "ratio": usual / own, "unit": "s"})
    return rows
