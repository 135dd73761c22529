"""Run notebooks in order, each in a fresh kernel of this environment; executed copies and pages go to a folder."""

import contextlib
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from course_utils import cache

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Outcome(NamedTuple):
    """What became of one notebook: `passed`, `failed` or `not run`; seconds, and peak resident memory in GB (10^9)."""

    status: str
    seconds: float = 0.0
    memory_gb: float = 0.0
    error: str = ""


def select(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of a folder in order; `wanted` narrows them by number (`1`, `01`) or name."""
    names = {path: {path.name, path.stem, path.stem.split("_")[0]} for path in sorted(folder.glob("*.ipynb"))}
    if not names:
        raise ValueError(f"there are no notebooks in {folder}; start in the course's folder, or give --notebooks.")
    chosen = set()
    for word in wanted:
        matches = {path for path in names if names[path] & {Path(word).name, word.zfill(2)}}
        if not matches:
            raise ValueError(f"no notebook is called {word!r}; there are {', '.join(path.stem for path in names)}.")
        chosen |= matches
    return [path for path in names if path in chosen or not wanted]


def run(notebooks: Sequence[Path], output: Path, timeout: int | None = None, keep_going: bool = False) -> list[Outcome]:
    """Execute notebooks one after the other; write `output/notebooks/*.ipynb` and `output/html/*.html`.

    `timeout` is in seconds for each cell. After a failure the others are `not run`, unless `keep_going`.
    """
    if any(path.resolve().parent == (output / "notebooks").resolve() for path in notebooks):
        raise ValueError(f"the output folder {output} would overwrite the notebooks themselves; give another --output.")
    width = max(len(path.stem) for path in notebooks)
    print(f"{'notebook':<{width}}  {'status':<8} {'seconds':>8} {'memory':>9}")
    outcomes: list[Outcome] = []
    for path in notebooks:
        print(f"{path.stem:<{width}}  ", end="", flush=True)
        stopped = not keep_going and any(done.status != "passed" for done in outcomes)
        done = Outcome("not run") if stopped else _run_one(path, output, timeout)
        print(f"{done.status:<8}", "" if stopped else f"{done.seconds:>8.1f} {done.memory_gb:>6.2f} GB", flush=True)
        outcomes.append(done)
    return outcomes


def _run_one(path: Path, output: Path, timeout: int | None) -> Outcome:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        # The kernel of this interpreter, whatever kernels the user has registered.
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])),
        timeout=timeout,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=CRITICAL"],  # errors reach us as messages; what the kernel logs is noise
        on_cell_start=lambda cell, cell_index: cells.append(cell),
    )
    cells: list[nbformat.NotebookNode] = []
    own = {"IPYTHONDIR": str(cache.home() / "ipython"), "MPLCONFIGDIR": str(cache.home() / "matplotlib")}
    Path(own["IPYTHONDIR"]).mkdir(parents=True, exist_ok=True)  # else it would warn
    start = time.monotonic()
    # In a thread of its own, so that this one can watch the memory and take Ctrl-C.
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.execute, cleanup_kc=True, env=own | os.environ)  # the home may be full or closed
        memory = _watch(future)
    _save(notebook, path.stem, output)
    error = ""
    if future.exception() is not None:
        place = f"{path.stem} failed in cell {cells[-1].get('id')!r}" if cells else f"{path.stem} did not start"
        error = f"{place}: {_ANSI.sub('', str(future.exception()))}"
    return Outcome("failed" if error else "passed", time.monotonic() - start, memory / 1e9, error)


def _watch(future: Future) -> int:
    """Wait for the notebook and return its peak memory in bytes; on Ctrl-C end its kernel first."""
    peak, me = 0, psutil.Process()
    try:
        while not future.done():
            wait([future], timeout=0.2)
            with contextlib.suppress(psutil.Error):  # a process has just ended
                peak = max(peak, sum(process.memory_info().rss for process in me.children(recursive=True)))
    except KeyboardInterrupt:
        while not future.done():
            for process in me.children(recursive=True):
                process.kill()
            wait([future], timeout=0.2)
        raise
    return peak


def _save(notebook: nbformat.NotebookNode, name: str, output: Path) -> None:
    """Write the executed copy, its page with links to the other pages, and the index of all pages."""
    page, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": name}})
    page = re.sub(r'href="(\w+)\.ipynb', r'href="\1.html', page)
    pages = sorted({name, *(path.stem for path in (output / "html").glob("[0-9]*.html"))})
    links = "\n".join(f'<li><a href="{stem}.html">{stem}</a></li>' for stem in pages)
    index = f'<!doctype html>\n<meta charset="utf-8">\n<title>The notebooks</title>\n<ul>\n{links}\n</ul>\n'
    texts = {f"notebooks/{name}.ipynb": nbformat.writes(notebook) + "\n", f"html/{name}.html": page}
    for target, text in (texts | {"html/index.html": index}).items():
        with cache.replacing(output / target) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
