"""Run all benchmarks, or those named: `python -m benchmarks filter`; write build/bench.json.

Options such as `--full` go to the benchmarks whose `run` has a parameter of that name.
"""

import importlib
import inspect
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(arguments: list[str]) -> None:
    wanted = [word for word in arguments if not word.startswith("--")]
    options = {word.removeprefix("--"): True for word in arguments if word.startswith("--")}
    names = sorted(file.stem for file in HERE.glob("bench_*.py"))
    unknown = set(wanted) - {name.removeprefix("bench_") for name in names}
    if unknown:
        known = ", ".join(name.removeprefix("bench_") for name in names)
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; there are: {known}")
    chosen = [name for name in names if not wanted or name.removeprefix("bench_") in wanted]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in chosen}
    known = {name: options.keys() & inspect.signature(module.run).parameters for name, module in modules.items()}
    if unknown := options.keys() - set().union(*known.values()):
        sys.exit(f"No benchmark here has the option --{', --'.join(sorted(unknown))}")
    results, targets = [], {}
    for name, module in modules.items():
        start = time.perf_counter()
        results += module.run(**{option: True for option in known[name]})
        targets |= getattr(module, "TARGETS", {})
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(table(results, targets))
    output = HERE.parent / "build" / "bench.json"
    output.parent.mkdir(exist_ok=True)
    earlier = json.loads(output.read_text(encoding="utf-8")) if wanted and output.is_file() else []
    new = {row["name"] for row in results}
    kept = [row for row in earlier if row["name"] not in new]  # of benchmarks that did not run this time
    output.write_text(json.dumps(kept + results, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {output.relative_to(HERE.parent).as_posix()}")


def table(results: list[dict], targets: dict[str, float]) -> str:
    lines = [("what", "ours", "theirs", "unit", "ratio", "target")]
    for row in results:
        wanted = targets.get(row["name"])
        target = "" if wanted is None else f"≥ {wanted:g}" + ("" if row["ratio"] >= wanted else " MISSED")
        numbers = (f"{row[key]:,.4g}" if row[key] < 1000 else f"{row[key]:,.0f}" for key in ("ours", "theirs"))
        spread = " ({:.2f}–{:.2f})".format(*row["spread"]) if "spread" in row else ""
        lines.append((row["name"], *numbers, row["unit"], f"{row['ratio']:.2f}×{spread}", target))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    align = (str.ljust, str.rjust, str.rjust, str.ljust, str.rjust, str.rjust)
    return "\n".join(
        "  ".join(put(cell, width) for put, cell, width in zip(align, line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    main(sys.argv[1:])
