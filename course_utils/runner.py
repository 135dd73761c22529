"""Run notebooks in order, each in a fresh kernel of this very environment, and keep what they showed.

The notebooks themselves are never changed: executed copies and HTML pages go to an output folder. What a notebook
needs from an earlier one is not decided here; every notebook asks `artifacts` for it.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
import psutil
import zmq.asyncio
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

POLL_SECONDS = 0.2
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook: `passed`, `failed` or `not run`; seconds, and peak resident memory in GB (10^9)."""

    notebook: str
    status: str
    seconds: float = 0.0
    memory_gb: float = 0.0
    error: str = ""


class _Client(NotebookClient):
    """A notebook client that starts the kernel of this interpreter, whatever kernels the user has registered."""

    position = 0
    kernel_pid: int | None = None

    def __init__(self, notebook: nbformat.NotebookNode, **options: object) -> None:
        super().__init__(notebook, **options)
        # A manager destroys a context of its own before the heartbeat thread has ended, which then prints an error.
        self.context = zmq.asyncio.Context()

    def create_kernel_manager(self) -> AsyncKernelManager:
        own = KernelSpecManager(kernel_dirs=[])
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own, context=self.context)
        return self.km

    async def async_start_new_kernel(self, **kwargs: object) -> None:
        await super().async_start_new_kernel(**kwargs)
        self.kernel_pid = self.km.provisioner.pid

    async def async_execute_cell(self, cell: nbformat.NotebookNode, cell_index: int, **kwargs: object) -> object:
        self.position = cell_index
        return await super().async_execute_cell(cell, cell_index, **kwargs)


def select(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of a folder in order; `wanted` narrows them by number (`1`, `01`) or name.

    Raises `ValueError` for a folder without notebooks, and for a name that no notebook has.
    """
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise ValueError(f"there is no notebook in {folder}; start in the course's folder, or give --notebooks.")
    chosen = set()
    for word in wanted:
        matches = [path for path in found if _is_called(path, word)]
        if not matches:
            raise ValueError(f"no notebook is called {word!r}; there are {', '.join(path.stem for path in found)}.")
        chosen.update(matches)
    return [path for path in found if path in chosen or not wanted]


def _is_called(path: Path, word: str) -> bool:
    number = path.stem.split("_")[0]
    same_number = word.isdecimal() and number.isdecimal() and int(number) == int(word)
    return same_number or Path(word).name in (path.name, path.stem)


def run(
    notebooks: Iterable[Path],
    output: Path,
    timeout: int | None = None,
    keep_going: bool = False,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Execute notebooks one after the other; write `output/notebooks/*.ipynb` and `output/html/*.html`.

    `timeout` is in seconds for each cell. After a failure the others are `not run`, unless `keep_going`. `say` gets
    finished lines, `live` one that replaces itself. Raises `ValueError` for an output folder that holds the sources
    and for a file that is no notebook.
    """
    notebooks = list(notebooks)
    if any(path.resolve().parent == (output / "notebooks").resolve() for path in notebooks):
        raise ValueError(f"the output folder {output} would overwrite the notebooks themselves; give another --output.")
    width = max([len(path.stem) for path in notebooks], default=8)
    say(f"{'notebook':<{width}}  {'status':<8} {'seconds':>8} {'memory':>9}")
    outcomes: list[Outcome] = []
    for path in notebooks:
        failed = any(done.status == "failed" for done in outcomes)
        if failed and not keep_going:
            outcomes.append(Outcome(path.stem, "not run"))
        else:
            show = partial(_show, live, f"{path.stem:<{width}}")
            outcomes.append(_run_one(path, output, timeout, show))
        done = outcomes[-1]
        figures = "" if done.status == "not run" else f" {done.seconds:>8.1f} {done.memory_gb:>6.2f} GB"
        say(f"{done.notebook:<{width}}  {done.status:<8}{figures}".rstrip())
    return outcomes


def _show(live: Callable[[str], None], name: str, text: str) -> None:
    live(f"{name}  {text}" if text else "")


def _run_one(path: Path, output: Path, timeout: int | None, live: Callable[[str], None]) -> Outcome:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is no notebook: {str(error).splitlines()[0]}") from None
    # Errors reach us as messages; on its own the kernel logs only noise (no encryption, a send while it ends).
    quiet = ["--log-level=CRITICAL"]
    place = {"metadata": {"path": str(path.parent)}}
    client = _Client(notebook, timeout=timeout, resources=place, extra_arguments=quiet)
    start = time.monotonic()
    with client.context, ThreadPoolExecutor(1) as pool:
        # In a thread of its own, so that this one can watch the memory and take Ctrl-C.
        future = pool.submit(client.execute)
        memory = _watch(future, client, start, live)
    seconds = time.monotonic() - start
    error = future.exception()
    if error is not None and not isinstance(error, CellExecutionError | CellTimeoutError | RuntimeError):
        raise error
    _save(notebook, path.stem, output)
    text = "" if error is None else _report(path.stem, notebook.cells[client.position], client, error)
    return Outcome(path.stem, "failed" if error else "passed", seconds, memory / 1e9, text)


def _watch(future: Future, client: _Client, start: float, live: Callable[[str], None]) -> int:
    """Wait for the notebook and return its kernel's peak memory in bytes; on Ctrl-C end the kernel first."""
    peak = 0
    try:
        while not future.done():
            wait([future], timeout=POLL_SECONDS)
            memory = sum(_resident(process) for process in _tree(client.kernel_pid))
            peak = max(peak, memory)
            place = f"cell {client.position + 1} of {len(client.nb.cells)}"
            live(f"running  {time.monotonic() - start:>8.1f} {memory / 1e9:>6.2f} GB  {place}")
    except KeyboardInterrupt:
        while not future.done():
            for process in _tree(client.kernel_pid):
                process.kill()
            wait([future], timeout=POLL_SECONDS)
        raise
    finally:
        live("")
    return peak


def _tree(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    try:
        kernel = psutil.Process(pid)
        return [*kernel.children(recursive=True), kernel]
    except psutil.Error:  # it has just ended
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _report(name: str, cell: nbformat.NotebookNode, client: _Client, error: BaseException) -> str:
    """Say which cell failed and why, in plain text."""
    if isinstance(error, CellExecutionError):
        traceback = [output.traceback for output in cell.outputs if output.output_type == "error"]
        why = "\n".join(traceback[-1]) if traceback and traceback[-1] else f"{error.ename}: {error.evalue}"
    elif isinstance(error, CellTimeoutError):
        why = f"The cell took longer than {client.timeout} seconds. Raise --timeout, or use a smaller profile."
    elif isinstance(error, DeadKernelError):
        why = "The kernel died. Often the memory was not enough: close other programs, or use a smaller profile."
    else:
        why = f"The kernel did not start: {error}"
    source = cell.source.splitlines()
    excerpt = source[:10] + ["…"] * (len(source) > 10)
    tail = _ANSI.sub("", why).rstrip().splitlines()[-25:]
    place = f"cell {client.position + 1} of {len(client.nb.cells)}, id {cell.get('id', '-')!r}"
    return "\n".join([f"{name} failed in {place}:", *(f"    {line}" for line in excerpt), "", *tail])


def _save(notebook: nbformat.NotebookNode, name: str, output: Path) -> None:
    page, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": name}})
    _write(output / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
    _write(output / "html" / f"{name}.html", page)


def _write(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
