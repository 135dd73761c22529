"""Filter a stream of source files by keyword: the tutorial's loop over Python objects against Arrow tables.

Every repetition is a process of its own, as a learner's first call is, so that the peak memory is that of one way.
The input is over 300 MB of Parquet, 1.5 GB of text; the tutorial's memory grows with it, ours does not.
"""

import contextlib
import hashlib
import io
import json
import os
import re
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
LARGEST_FILE = 40_000  # bytes; the mean is then that of the CodeParrot data, 180 GB in 22 million files
GROUP_BYTES = 4_000_000
FILES = 5
REPETITIONS = 3


def run() -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        file = build(data / f"train-00000-of-{FILES:05d}.parquet")
        for number in range(1, FILES):
            shutil.copy(file, data / f"train-{number:05d}-of-{FILES:05d}.parquet")
        pairs = [(measure("tutorial", folder), measure("ours", folder)) for _ in range(REPETITIONS)]
    for theirs, ours in pairs:
        assert theirs["rows"] == ours["rows"], "the two ways keep different rows"
    results = []
    for key, name, unit in (("seconds", "filter, time", "s"), ("megabytes", "filter, peak memory", "MB")):
        theirs, ours = (statistics.median(pair[side][key] for pair in pairs) for side in (0, 1))
        results.append({"name": name, "ours": ours, "theirs": theirs, "ratio": theirs / ours, "unit": unit})
    return results


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
                if size > LARGEST_FILE:
                    continue
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


def measure(way: str, folder: str) -> dict:
    """Run one way in a new process; without torch, which `datasets` loads when it can and neither way needs."""
    command = [sys.executable, "-m", "benchmarks.bench_filter", way, folder]
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


def peak_megabytes() -> float:
    import psutil

    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    if sys.platform == "linux":  # getrusage would report at least the memory of the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def child(way: str, folder: str) -> None:
    import datasets

    from course_utils.data.filtering import KEYWORDS, filter_streaming_dataset

    stream = datasets.load_dataset(folder, split="train", streaming=True)
    function = filter_streaming_dataset if way == "ours" else tutorials_way
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        kept = function(stream, list(KEYWORDS))
        seconds = time.perf_counter() - start
    megabytes = peak_megabytes()
    rows = hashlib.sha256()
    for table in kept.with_format("arrow").iter(batch_size=100):
        rows.update(json.dumps([[str(name), table[name].to_pylist()] for name in table.column_names]).encode())
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "rows": rows.hexdigest()}))


if __name__ == "__main__":
    child(*sys.argv[1:])
