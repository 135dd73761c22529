"""Run notebooks in order, each in a fresh kernel of this environment; executed copies and pages go to a folder."""

import contextlib
import html
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
from course_utils.language import chosen, text

# One look for all pages, readable on a telephone.
_STYLE = """<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body { max-width: 58rem; margin: 0 auto !important; padding: 0 1rem !important; line-height: 1.55 }
.course { font-family: system-ui, sans-serif; padding: .8rem 0 }
.course td { padding: .5rem 1.5rem .5rem 0; vertical-align: top }
.course td:last-child { white-space: nowrap } .course td a { font-weight: 600 }
.jp-InputPrompt, .jp-OutputPrompt { display: none } pre, table { overflow-x: auto } img { height: auto }
.highlight pre { font: 12px/1.45 monospace !important }  /* 120 characters fit */
.jp-RenderedMarkdown pre, .jp-OutputArea .highlight pre {
  background: #f5f5f5; border: 1px solid #e0e0e0; padding: .4rem .6rem !important; margin: .6rem 0 !important }
.jp-OutputArea pre { word-break: normal !important; overflow-wrap: anywhere }
</style>"""
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
    notebook.metadata["seconds"] = round(seconds := time.monotonic() - start, 1)
    _save(notebook, path, output)
    error = ""
    if future.exception() is not None:
        place = f"{path.stem} failed in cell {cells[-1].get('id')!r}" if cells else f"{path.stem} did not start"
        error = f"{place}: {_ANSI.sub('', str(future.exception()))}"
    return Outcome("failed" if error else "passed", seconds, memory / 1e9, error)


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


def _save(notebook: nbformat.NotebookNode, path: Path, output: Path) -> None:
    """Write the executed copy, its page, and the index of all pages."""
    title = _opening(notebook, path.stem)[0]
    page, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})
    page = re.sub(r'href="(\w+)\.ipynb', r'href="\1.html', page)
    page = page.replace('<html lang="en">', f'<html lang="{chosen().replace("_", "-")}">', 1)
    page = re.sub(r"</head>", f"{_STYLE}</head>", page, count=1)
    page = re.sub(r"(<body[^>]*>)", rf"\1{_navigation(notebook, path)}", page, count=1)
    files = {f"notebooks/{path.name}": nbformat.writes(notebook) + "\n", f"html/{path.stem}.html": page}
    for target, content in files.items():
        _write(output / target, content)
    _write(output / "html" / "index.html", _index(output))


def _opening(notebook: nbformat.NotebookNode, name: str) -> tuple[str, str]:
    """Return the first heading, or else the name, and the paragraph below it if there is one."""
    found = re.search(r"(?m)^# (.+)(?:\n+((?![\[#!]).+))?", notebook.cells[0].source if notebook.cells else "")
    return (found[1], found[2] or "") if found else (name, "")


def _navigation(notebook: nbformat.NotebookNode, path: Path) -> str:
    """Return links to the index and the neighbours, and the page's own contents."""
    names = sorted(other.stem for other in path.parent.glob("*.ipynb"))
    place = names.index(path.stem)
    near = {text("← previous"): names[place - 1] if place else "", text("next →"): (*names, "")[place + 1]}
    links = [f'<a href="index.html">{text("all notebooks")}</a>']
    links += [f'<a href="{n}.html">{w}</a>' for w, n in near.items() if n]
    markdown = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+)$", markdown, re.MULTILINE)
    anchors = (heading.replace(" ", "-") for heading in headings)  # as nbconvert makes them
    items = "".join(f'<li><a href="#{a}">{html.escape(h)}</a></li>' for a, h in zip(anchors, headings, strict=True))
    contents = f"<details><summary>{text('Contents')}</summary><ul>{items}</ul></details>"
    return f'<nav class="course">{" · ".join(links)}{contents}</nav>'


def _index(output: Path) -> str:
    """Return the page that lists all executed notebooks with their times."""
    rows = []
    for path in sorted((output / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        seconds = f"{notebook.metadata.get('seconds', 0):.0f} s"
        name, about = (html.escape(part.replace("`", "")) for part in _opening(notebook, path.stem))
        rows.append(f'<tr><td><a href="{path.stem}.html">{name}</a><br>{about}</td><td>{seconds}</td></tr>')
    name = text("Code completion from scratch")
    lang = chosen().replace("_", "-")
    head = f'<!doctype html>\n<html lang="{lang}"><meta charset="utf-8"><title>{name}</title>'
    heading = f"<h1>{name}</h1><p>{text('The notebooks as they ran on this machine.')}</p>"
    return f'{head}{_STYLE}<body><main class="course">{heading}<table>{"".join(rows)}</table></main></body></html>\n'


def _write(target: Path, text: str) -> None:
    with cache.replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
