"""The notebook runner and the command line, with real kernels on small notebooks."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pyarrow as pa
import pytest
from bs4 import BeautifulSoup

from course_utils import runner
from course_utils.__main__ import main
from course_utils.data.documents import COLUMNS

ALT = 'A bar for "a" & a higher one for "b".'
FIGURE = f"from course_utils import plots\nplots.bars({{'a': 1, 'b': 2}}, x='letter', y='count', alt={ALT!r})"


def write_notebook(folder: Path, name: str, *cells: str) -> Path:
    text = nbformat.v4.new_markdown_cell(
        f"# {name}\n\nAll of `{name}`.\n\n## What is it?\n\n[next](02_later.ipynb)", id="title"
    )
    parts = [nbformat.v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(cells, start=1)]
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[text, *parts]), folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Three notebooks, of which the second fails; in a working folder like the course's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "tiny")
    folder = tmp_path / "notebooks"
    # A kernel that the user registered under the usual name must not be used: it may be another Python.
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["no-such-python"], "display_name": "wrong", "language": "python"}', encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    names = "os.environ['COURSE_PROFILE'], get_ipython().ipython_dir, matplotlib.get_configdir()"
    where = f"import os, sys, matplotlib\nprint(sys.executable, os.getcwd(), {names}, sep='\\n')"
    write_notebook(folder, "00_good", where, FIGURE, "ballast = b'x' * 150_000_000\nimport time; time.sleep(1)")
    write_notebook(folder, "01_broken", "first = 1", "def area(side):\n    return side * sied\n\narea(2)", "last = 3")
    write_notebook(folder, "02_later", "print('later')")
    return folder


def test_copies_and_pages_are_kept_and_a_failure_stops(course, capsys):
    before = {path.name: path.read_bytes() for path in course.iterdir()}
    assert main(["run", "--profile", "laptop"]) == 1
    printed = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in printed.out.splitlines() if line[:1] == "0"}
    assert [rows["00_good"][0], rows["01_broken"][0], rows["02_later"]] == ["passed", "failed", ["not", "run"]]
    assert float(rows["00_good"][1]) > 1
    assert 0.15 < float(rows["00_good"][2]) < 2
    assert "1 passed, 1 failed, 1 not run" in printed.out
    for text in ("01_broken failed in cell 'cell-2'", "return side * sied", "NameError: name 'sied' is not defined"):
        assert text in printed.err
    assert "\x1b" not in printed.err

    build = course.parent / "build"
    written = sorted(path.relative_to(build).as_posix() for path in build.rglob("*.*"))
    names = ("00_good", "01_broken")
    pages = [*(f"html/{name}.html" for name in names), "html/index.html"]
    assert written == [*pages, *(f"notebooks/{name}.ipynb" for name in names)]
    copies = [nbformat.read(build / "notebooks" / f"{name}.ipynb", as_version=4) for name in names]
    kept = [str(course.parent / "home" / name) for name in ("ipython", "matplotlib")]  # not in the user's home
    assert copies[0].cells[1].outputs[0].text.splitlines() == [sys.executable, str(course), "laptop", *kept]
    assert copies[1].cells[2].outputs[0].ename == "NameError"
    page, _, index = (BeautifulSoup((build / path).read_bytes(), "html.parser") for path in pages)
    assert [image["alt"] for image in page.select("img")] == [ALT]
    assert "02_later.html" in [link["href"] for link in page.select("a")]
    assert [link["href"] for link in index.select("a")] == ["00_good.html", "01_broken.html"]
    assert [link.text for link in index.select("a")] == ["00_good", "01_broken"]
    assert index.td.text == "00_goodAll of 00_good."
    assert all(re.fullmatch(r"\d+ s", cell.text) for cell in index.select("td:last-child"))
    assert page.title.text == "00_good"
    navigation = [(link.text, link["href"]) for link in page.select("nav.course > a")]
    assert navigation == [("all notebooks", "index.html"), ("next →", "01_broken.html")]
    (contents,) = page.select("nav.course li a")
    assert page.find(id=contents["href"].removeprefix("#")).text.startswith(contents.text)
    assert before == {path.name: path.read_bytes() for path in course.iterdir()}


def test_keep_going_runs_the_rest_of_those_chosen_by_number_or_name_in_order(course, capsys):
    assert main(["run", "02_later", "1", "01_broken.ipynb", "--keep-going"]) == 1
    assert re.findall(r"^0\S+ +\w+", capsys.readouterr().out, re.MULTILINE) == [
        "01_broken  failed",
        "02_later   passed",
    ]


@pytest.mark.parametrize(
    ("code", "timeout", "message"),
    [("import os; os._exit(1)", None, "died"), ("while True: pass", 1, "timed out")],
)
def test_a_kernel_that_dies_or_takes_too_long_is_reported(tmp_path, code, timeout, message):
    path = write_notebook(tmp_path / "notebooks", "00_bad", "first = 1", code)
    (outcome,) = runner.run([path], tmp_path / "build", timeout)
    assert outcome.status == "failed"
    assert "00_bad failed in cell 'cell-2'" in outcome.error
    assert message in outcome.error


def test_interruption_ends_the_kernel_and_leaves_nothing(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    write_pid = f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}}.')"
    path, wait = write_notebook(tmp_path / "notebooks", "00_slow", write_pid, "while True: pass"), runner.wait

    def interrupt(futures, timeout):  # called in the main thread, where Ctrl-C arrives
        if pid.exists() and pid.read_text().endswith("."):
            monkeypatch.setattr(runner, "wait", wait)
            raise KeyboardInterrupt
        return wait(futures, timeout)

    monkeypatch.setattr(runner, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run([path], tmp_path / "build")
    assert not psutil.pid_exists(int(pid.read_text().rstrip(".")))
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "7"], "no notebook is called '7'; there are 00_good, 01_broken, 02_later"),
        (["fetch", "--profile", "huge"], "unknown profile 'huge'"),
        (["run", "--notebooks", "nowhere"], "there are no notebooks in"),
        (["run", "--output", "."], "would overwrite the notebooks"),
    ],
)
def test_bad_input_is_one_clear_line(course, capsys, arguments, expected):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


@pytest.mark.parametrize(
    ("variable", "location", "code", "expected"),
    [
        ("CODE_CORPUS", "nobody/{split}", 1, "nobody/train is not a local folder or file, and the Hub does not open"),
        ("CODE_CORPUS", "course-pairs,nobody/nothing", 2, "'course-pairs' does not exist. Allowed: 'pinned', a folder"),
        ("CODE_CORPUS", "nobody/one,nobody/two", 1, "nobody/one is not"),
        ("FILTERED_CORPUS", "nobody/nothing", 1, "network, or set COURSE_CODE_CORPUS=pinned, which needs no network."),
        ("PAIRS", "nobody/nothing", 1, "nobody/nothing is not"),
        ("SENTENCES", "{here}/code", 2, "no file in it is like train.jsonl"),
        ("ENCODER", "nobody/nothing", 1, "COURSE_ENCODER=nobody/nothing opens neither here nor from the Hub."),
        ("CODE_CORPUS", "{here}/none", 2, "none has no rows of a split 'train', but ['train', 'validation']"),
        ("PAIRS", "course-sentences", 0, ""),
        ("HOME", "{here}/code/a.py", 1, "): set COURSE_HOME to another folder."),
        ("HOME", "~no-such-user/x", 2, "no home folder is known for '~no-such-user/x'; give a whole path"),
    ],
)
def test_fetch_opens_all_that_a_profile_reads_or_fails_in_one_line(
    monkeypatch, tmp_path, capsys, variable, location, code, expected
):
    (tmp_path / "code").mkdir()
    for name in "ab":
        (tmp_path / "code" / f"{name}.py").write_text(f"{name} = 1\n")
    (tmp_path / "none").mkdir()
    for split in ("train", "validation"):
        pa.ipc.new_stream(
            tmp_path / "none" / f"{split}.arrow", pa.schema([(name, pa.string()) for name in COLUMNS])
        ).close()
    values = {"HOME": "{here}/home", "CODE_CORPUS": "{here}/code", variable: location}
    for name, value in values.items():
        monkeypatch.setenv(f"COURSE_{name}", value.replace("{here}", str(tmp_path)))
    assert main(["fetch", "--profile", "tiny"]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("course_utils: ")]
    assert (len(lines), expected in "".join(lines)) == (code > 0, True)


def test_help_loads_no_heavy_library():
    command = [sys.executable, "-X", "importtime", "-m", "course_utils", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert loaded.isdisjoint({"torch", "transformers", "datasets", "pandas", "numpy", "nbclient"})


def test_doctor_reports_machine_and_costs_without_warnings(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "course_utils", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("precision", "free_memory_gb", "tiny", "laptop", "full", "steps measured"):
        assert word in done.stdout


def test_a_report_names_machine_and_variables_but_no_values(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    assert main(["doctor", "--report"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("platform", "torch 2", "limits: works", "COURSE_HOME"))
    assert str(tmp_path) not in printed
