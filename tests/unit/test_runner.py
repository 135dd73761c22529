"""The notebook runner and the command line, with real kernels on small notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup

from course_utils import runner
from course_utils.__main__ import main
from course_utils.environment import readable_duration

ALT = 'A bar for "a" & a higher one for "b".'
FIGURE = f"from course_utils import plots\nplots.bars({{'a': 1, 'b': 2}}, x='letter', y='count', alt={ALT!r})"


def write_notebook(folder: Path, name: str, *cells: str) -> Path:
    parts = [nbformat.v4.new_markdown_cell(f"# {name}"), *(nbformat.v4.new_code_cell(cell) for cell in cells)]
    for number, part in enumerate(parts):
        part["id"] = f"cell-{number}"
    path = folder / f"{name}.ipynb"
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=parts), path)
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Three notebooks, of which the second fails; in a working folder like the course's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "tiny")
    folder = tmp_path / "notebooks"
    write_notebook(folder, "00_good", "import os\nprint(os.environ['COURSE_PROFILE'])")
    write_notebook(folder, "01_broken", "first = 1", "def area(side):\n    return side * sied\n\narea(2)", "last = 3")
    write_notebook(folder, "02_later", "print('later')")
    return folder


def test_success_keeps_the_source_and_writes_a_copy_and_a_page(tmp_path, monkeypatch):
    # A kernel that the user registered under the usual name must not be used: it may be another Python.
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    wrong = {"argv": ["no-such-python", "{connection_file}"], "display_name": "wrong", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(wrong), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    ballast = "ballast = b'x' * 150_000_000\nimport time; time.sleep(1)"
    where = "import os, sys\nprint(sys.executable, os.getcwd(), sep='\\n')"
    path = write_notebook(tmp_path / "notebooks", "00_good", where, FIGURE, ballast)
    before = path.read_bytes()

    (outcome,) = runner.run([path], tmp_path / "build")

    assert (outcome.notebook, outcome.status, outcome.error) == ("00_good", "passed", "")
    assert outcome.seconds > 1
    assert 0.15 < outcome.memory_gb < 2
    assert path.read_bytes() == before
    written = sorted(p.relative_to(tmp_path / "build").as_posix() for p in (tmp_path / "build").rglob("*.*"))
    assert written == ["html/00_good.html", "notebooks/00_good.ipynb"]
    copy = nbformat.read(tmp_path / "build" / "notebooks" / "00_good.ipynb", as_version=4)
    executable, folder = copy.cells[1].outputs[0].text.splitlines()
    assert Path(executable) == Path(sys.executable)
    assert Path(folder) == path.parent
    page = BeautifulSoup((tmp_path / "build" / "html" / "00_good.html").read_bytes(), "html.parser")
    assert [image["alt"] for image in page.select("img")] == [ALT]


def test_failure_names_the_cell_and_stops(course, capsys):
    assert main(["run"]) == 1
    printed = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:3] for line in printed.out.splitlines() if line[:1] == "0"}
    assert rows["00_good"][0] == "passed"
    assert rows["01_broken"][0] == "failed"
    assert rows["02_later"] == ["not", "run"]
    assert "1 passed, 1 failed, 1 not run" in printed.out
    assert "01_broken failed in cell 3 of 4, id 'cell-2'" in printed.err
    assert "return side * sied" in printed.err
    assert "NameError: name 'sied' is not defined" in printed.err
    assert "\x1b" not in printed.err
    copies = course.parent / "build" / "notebooks"
    assert sorted(path.name for path in copies.iterdir()) == ["00_good.ipynb", "01_broken.ipynb"]
    assert nbformat.read(copies / "01_broken.ipynb", as_version=4).cells[2].outputs[0].ename == "NameError"


def test_keep_going_runs_the_rest(course, capsys):
    assert main(["run", "1", "02_later", "--keep-going", "--profile", "laptop"]) == 1
    assert "1 passed, 1 failed, 0 not run" in capsys.readouterr().out


def test_profile_reaches_the_kernel(course):
    assert main(["run", "00", "--profile", "laptop"]) == 0
    copy = nbformat.read(course.parent / "build" / "notebooks" / "00_good.ipynb", as_version=4)
    assert copy.cells[1].outputs[0].text == "laptop\n"


def test_a_killed_kernel_is_reported(tmp_path):
    path = write_notebook(tmp_path / "notebooks", "00_dies", "import os", "os._exit(1)")
    (outcome,) = runner.run([path], tmp_path / "build")
    assert outcome.status == "failed"
    assert "id 'cell-2'" in outcome.error
    assert "kernel died" in outcome.error


def test_a_cell_that_takes_too_long_is_reported(tmp_path):
    path = write_notebook(tmp_path / "notebooks", "00_slow", "import time\ntime.sleep(600)")
    (outcome,) = runner.run([path], tmp_path / "build", timeout=1)
    assert outcome.status == "failed"
    assert "longer than 1 seconds" in outcome.error
    assert "--timeout" in outcome.error


def test_interruption_ends_the_kernel_and_leaves_nothing(tmp_path):
    save_pid = "import os, pathlib\npathlib.Path('pid').write_text(f'{os.getpid()}.')"
    path = write_notebook(tmp_path / "notebooks", "00_slow", save_pid, "import time\ntime.sleep(600)")
    pid = path.with_name("pid")

    def interrupt(text: str) -> None:  # called in the main thread, where Ctrl-C arrives
        if text and pid.exists() and pid.read_text().endswith("."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run([path], tmp_path / "build", live=interrupt)
    assert not psutil.pid_exists(int(pid.read_text().rstrip(".")))
    assert not (tmp_path / "build").exists()


def test_notebooks_are_selected_by_number_or_name_in_their_own_order(course):
    assert [path.stem for path in runner.select(course)] == ["00_good", "01_broken", "02_later"]
    assert [path.stem for path in runner.select(course, ["2", "00_good"])] == ["00_good", "02_later"]
    assert [path.stem for path in runner.select(course, ["01", "01_broken.ipynb", "1"])] == ["01_broken"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "7"], "no notebook is called '7'; there are 00_good, 01_broken, 02_later"),
        (["run", "0_good"], "no notebook is called '0_good'"),
        (["run", "²"], "no notebook is called '²'"),
        (["run", "--profile", "huge"], "unknown profile 'huge'; there are tiny, laptop, full"),
        (["fetch", "--profile", "huge"], "unknown profile 'huge'"),
        (["run", "--notebooks", "nowhere"], "there is no notebook in nowhere"),
        (["run", "--timeout", "0"], "--timeout 0 is not allowed"),
        (["run", "--output", "."], "would overwrite the notebooks"),
        (["run", "--notebooks", "damaged"], "00_cut.ipynb is no notebook"),
    ],
)
def test_bad_input_is_one_clear_line(course, capsys, arguments, expected):
    damaged = course.parent / "damaged"
    damaged.mkdir()
    (damaged / "00_cut.ipynb").write_text((course / "00_good.ipynb").read_text(encoding="utf-8")[:40], encoding="utf-8")
    before = {path.name: path.read_bytes() for path in course.iterdir()}
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert len(errors.splitlines()) == 1
    assert before == {path.name: path.read_bytes() for path in course.iterdir()}


def test_a_profile_variable_is_checked_before_anything_runs(course, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    assert main(["run"]) == 2
    assert "unknown profile 'huge'" in capsys.readouterr().err
    assert not (course.parent / "build").exists()


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "under 1 min"), (8.4, "8 min"), (150, "2 hours"), (60 * 24 * 259, "259 days"), (float("nan"), "-")],
)
def test_durations_are_told_in_the_unit_that_people_use(minutes, text):
    assert readable_duration(minutes) == text


def test_help_loads_no_heavy_library():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['course_utils', '--help']\n"
        "try:\n    runpy.run_module('course_utils', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'numpy', 'nbclient'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("doctor", "fetch", "run"):
        assert command in done.stdout


def test_doctor_reports_machine_and_costs_without_warnings(tmp_path):
    environment = {**os.environ, "COURSE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "course_utils", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    for word in ("device", "precision", "memory", "disk", "tiny", "laptop", "full", "steps measured"):
        assert word in done.stdout
    assert done.stderr == ""
