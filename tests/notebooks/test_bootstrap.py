"""The Colab path: a notebook alone in an empty folder, on a machine that has the libraries but not the course."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "notebooks" / "00_start_here.ipynb"
PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "course_utils")
# Parts of this environment that would be the course itself, in whatever way it was installed here.
COURSE = ("course_utils", "code_completion_course", "__editable__")


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory) -> Path:
    """Return the interpreter of a new environment that sees all installed libraries, and no course_utils."""
    folder = tmp_path_factory.mktemp("fresh")
    builder = venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt")
    builder.create(folder / "env")
    context = builder.ensure_directories(folder / "env")
    python = Path(context.env_exe)
    # Python 3.11 puts an old build tool beside pip, which would hide the one that pyproject.toml asks for.
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "--quiet", "setuptools"], check=True)
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A .pth file that is named here adds a folder, but the .pth files in that folder do nothing.
    Path(site.stdout.strip(), "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n", encoding="utf-8")
    for library in libraries:
        installed = [entry.name for entry in Path(library).iterdir() if entry.name == "course_utils"]
        assert not installed, "install the course with pip install -e, so that this test can hide it"
    return python


@pytest.fixture
def source(tmp_path) -> Path:
    """Return a copy of what pip needs, for pip builds in the folder that it installs from."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in PACKAGE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(python: Path, *arguments: str, **options) -> str:
    # Without a network pip cannot fetch the build tool; the installed one serves (0 switches the isolation off).
    environment = os.environ | {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"} | options.pop("env", {})
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_notebook_alone_installs_the_course_and_runs(fresh_python, source, tmp_path):
    where = "import importlib.util as u; print(u.find_spec('course_utils') and u.find_spec('course_utils').origin)"
    assert run(fresh_python, "-c", where, cwd=tmp_path).strip() == "None"

    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(FIRST, folder)
    convert = ("-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb", FIRST.name)
    run(fresh_python, *convert, cwd=folder, env={"COURSE_SOURCE": str(source)})

    origin = Path(run(fresh_python, "-c", where, cwd=tmp_path).strip())
    assert origin.is_relative_to(fresh_python.parents[1]), origin
    assert {path.name for path in folder.iterdir()} == {FIRST.name, "done.ipynb"}
    done = nbformat.read(folder / "done.ipynb", as_version=4)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    kinds = {output.output_type for cell in done.cells for output in cell.get("outputs", ())}
    assert "error" not in kinds


def test_installing_replaces_no_library(fresh_python, source, tmp_path):
    report = tmp_path / "report.json"
    run(fresh_python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(report), str(source))
    names = [entry["metadata"]["name"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    assert [name for name in names if name != "code-completion-course"] == []


def test_second_run_of_the_cell_does_nothing(tmp_path):
    cell = next(cell for cell in nbformat.read(FIRST, as_version=4).cells if cell.get("id") == "colab")
    script = tmp_path / "cell.ipy"
    script.write_text(cell.source, encoding="utf-8")
    out = run(Path(sys.executable), "-m", "IPython", str(script), env={"COURSE_SOURCE": str(tmp_path / "missing")})
    assert out == ""
