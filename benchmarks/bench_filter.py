"""Filter a stream of source files by keyword: the tutorial's loop over Python objects against Arrow tables.

Every repetition is a process of its own, as a learner's first call is, so that the peak memory is that of one way.
Time: about 300 MB of text. Memory: five times as much, over 300 MB of Parquet; the tutorial's grows with it, ours not.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.real_files import installed_files

TARGETS = {"filter, time": 6, "filter, peak memory": 2}
TEXT_BYTES = 300_000_000
GROUP_BYTES = 4_000_000
COPIES_FOR_MEMORY = 5
REPETITIONS = 3


def run() -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        file = build(small / "data" / "train-00000-of-00001.parquet")
        (large / "data").mkdir(parents=True)
        for copy in range(COPIES_FOR_MEMORY):
            shutil.copy(file, large / "data" / f"train-{copy:05d}-of-{COPIES_FOR_MEMORY:05d}.parquet")
        pairs = [(measure("tutorial", small), measure("ours", small)) for _ in range(REPETITIONS)]
        memory = (measure("tutorial", large), measure("ours", large))
    for theirs, ours in [*pairs, memory]:
        assert theirs["rows"] == ours["rows"], "the two ways keep different rows"
    theirs, ours = (statistics.median(pair[side]["seconds"] for pair in pairs) for side in (0, 1))
    peaks = [way["peak"] / 1e6 for way in memory]
    return [
        {"name": "filter, time", "ours": ours, "theirs": theirs, "ratio": theirs / ours, "unit": "s"},
        {
            "name": "filter, peak memory",
            "ours": peaks[1],
            "theirs": peaks[0],
            "ratio": peaks[0] / peaks[1],
            "unit": "MB",
        },
    ]


def build(file: Path) -> Path:
    """Write the installed files, over and over with new paths, as Parquet with the CodeParrot columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ("repo_name", "path", "copies", "size", "content", "license")
    schema = pa.schema([(name, pa.string()) for name in columns])
    file.parent.mkdir(parents=True)
    rows, total, waiting, copy = [], 0, 0, 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while total < TEXT_BYTES:
            for path, text in installed_files():
                size = len(text.encode())
                rows.append((path.partition("/")[0], f"{copy}/{path}", "1", str(size), text, "unknown"))
                total, waiting = total + size, waiting + size
                if waiting >= GROUP_BYTES or total >= TEXT_BYTES:
                    arrays = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
                    writer.write_table(pa.table(arrays, schema=schema))
                    rows, waiting = [], 0
                if total >= TEXT_BYTES:
                    break
            copy += 1
    return file


def measure(way: str, folder: Path) -> dict:
    """Run one way in a new process; without torch, which `datasets` loads when it can and neither way needs."""
    command = [sys.executable, "-m", "benchmarks.bench_filter", way, str(folder)]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "USE_TORCH": "0"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def tutorials_way(dataset, filters):
    """Row A2 as described: Python objects one by one, all that is kept in a dictionary of lists."""
    from collections import defaultdict

    from datasets import Dataset
    from tqdm import tqdm

    kept, total = defaultdict(list), 0
    for sample in tqdm(iter(dataset)):
        total += 1
        if any(word in sample["content"] for word in filters):
            for name, value in sample.items():
                kept[name].append(value)
    print(f"{len(kept['content']) / total:.2%} of data after filtering.")
    return Dataset.from_dict(kept)


def peak_bytes() -> int:
    import psutil

    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def child(way: str, folder: str) -> None:
    import datasets

    from course_utils.data.filtering import KEYWORDS, filter_streaming_dataset

    stream = datasets.load_dataset(folder, split="train", streaming=True)
    function = filter_streaming_dataset if way == "ours" else tutorials_way
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        kept = function(stream, list(KEYWORDS))
        seconds = time.perf_counter() - start
    peak = peak_bytes()
    rows = hashlib.sha256()
    for table in kept.with_format("arrow").iter(batch_size=100):
        rows.update(json.dumps([[str(name), table[name].to_pylist()] for name in table.column_names]).encode())
    print(json.dumps({"seconds": seconds, "peak": peak, "rows": rows.hexdigest()}))


if __name__ == "__main__":
    child(*sys.argv[1:])
