"""Run all benchmarks, or those named: `python -m benchmarks filter`; write build/bench.json."""

import importlib
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(wanted: list[str]) -> None:
    names = sorted(file.stem for file in HERE.glob("bench_*.py"))
    unknown = set(wanted) - {name.removeprefix("bench_") for name in names}
    if unknown:
        known = ", ".join(name.removeprefix("bench_") for name in names)
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; there are: {known}")
    results, targets = [], {}
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        start = time.perf_counter()
        module = importlib.import_module(f"benchmarks.{name}")
        results += module.run()
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
        lines.append((row["name"], *numbers, row["unit"], f"{row['ratio']:.2f}×", target))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    align = (str.ljust, str.rjust, str.rjust, str.ljust, str.rjust, str.rjust)
    return "\n".join(
        "  ".join(put(cell, width) for put, cell, width in zip(align, line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    main(sys.argv[1:])
