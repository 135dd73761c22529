"""The Colab path: a notebook alone in an empty folder, on a machine that has the libraries but not the course."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "notebooks" / "00_start_here.ipynb"


def run(python: Path, *arguments: str, **options) -> str:
    # Without a network pip cannot fetch the build tool; the installed one serves (0 switches the isolation off).
    options["env"] = os.environ | {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"} | options.get("env", {})
    options["env"].pop("PYTHONPATH", None)
    done = subprocess.run([python, *arguments], capture_output=True, text=True, encoding="utf-8", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory) -> Path:
    """Return the interpreter of a new environment that sees all installed libraries, and no course_utils."""
    folder = tmp_path_factory.mktemp("fresh")
    builder = venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt")
    builder.create(folder / "env")
    python = Path(builder.ensure_directories(folder / "env").env_exe)
    # Python 3.11 puts an old build tool beside pip, which would hide the one that pyproject.toml asks for.
    run(python, "-m", "pip", "uninstall", "--yes", "--quiet", "setuptools")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # A .pth file that is named here adds a folder, but the .pth files in that folder do nothing.
    Path(site, "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n", encoding="utf-8")
    assert not any(Path(library, "course_utils").exists() for library in libraries), "install the course with -e"
    return python


@pytest.fixture
def source(tmp_path) -> str:
    """Return a copy of what pip needs, for pip builds in the folder that it installs from."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("course_utils", "local_hub"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    return str(tmp_path / "source")


def test_a_notebook_alone_installs_the_course_and_no_library_and_runs(fresh_python, source, tmp_path):
    report = tmp_path / "report.json"
    run(fresh_python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(report), source)
    installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    assert [entry["metadata"]["name"] for entry in installs] == ["code-completion-course"]

    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(FIRST, folder)
    convert = ("-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb", FIRST.name)
    run(fresh_python, *convert, cwd=folder, env={"COURSE_SOURCE": source})
    where = run(fresh_python, "-c", "import course_utils; print(course_utils.__file__)", cwd=folder).strip()
    assert Path(where).is_relative_to(fresh_python.parents[1])
    assert {path.name for path in folder.iterdir()} == {FIRST.name, "done.ipynb"}
    done = nbformat.read(folder / "done.ipynb", as_version=4)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert "error" not in {output.output_type for cell in done.cells for output in cell.get("outputs", ())}


def test_a_wheel_has_every_kind_of_file_that_the_course_reads(source, tmp_path):
    package = Path(source, "course_utils")
    reference = package / "models" / "reference"
    reference.mkdir(exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json", "merges.txt", "chat_template.jinja", "README.md", "run.json"):
        (reference / name).touch()
    folders = (package, Path(source, "local_hub"))
    ours = {p.relative_to(source).as_posix() for folder in folders for p in folder.rglob("*") if p.is_file()}
    run(Path(sys.executable), "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), source)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for_maintainers = {"course_utils/README.md"}
    assert ours - shipped == for_maintainers


@pytest.mark.skipif("TEST_KILLS" not in os.environ, reason="nightly: it takes a minute")
def test_the_hub_of_notebook_11_comes_with_a_wheel(fresh_python, source, tmp_path):
    run(Path(sys.executable), "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), source)
    (wheel,) = tmp_path.glob("*.whl")
    run(fresh_python, "-m", "pip", "uninstall", "--yes", "--quiet", "code-completion-course")  # of another test
    (folder := tmp_path / "empty").mkdir()
    shutil.copy(ROOT / "notebooks" / "11_sharing.ipynb", folder)
    convert = ("-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb", "11_sharing.ipynb")
    run(fresh_python, *convert, cwd=folder, env={"COURSE_SOURCE": str(wheel)})
    assert {path.name for path in folder.iterdir()} == {"11_sharing.ipynb", "done.ipynb"}


def test_second_run_of_the_cell_does_nothing(tmp_path):
    cell = next(cell for cell in nbformat.read(FIRST, as_version=4).cells if cell.id == "colab")
    script = tmp_path / "cell.ipy"
    script.write_text(cell.source, encoding="utf-8")
    assert run(Path(sys.executable), "-m", "IPython", str(script), env={"COURSE_SOURCE": "missing"}) == ""
