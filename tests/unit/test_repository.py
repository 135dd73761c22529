"""What the repository promises outside its code: pins, the README, the commands, what is committed."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
BIGGEST_FILE = 2_000_000  # bytes


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
README = text_of("README.md")
TARGETS = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
WORKFLOW = yaml.safe_load(text_of(".github/workflows/tests.yml"))


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def pins(name: str) -> dict[str, Version]:
    lines = [line for line in text_of(name).splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "every line of a constraints file is name==version"
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def commands_in(text: str) -> set[str]:
    """Targets that a text calls with make."""
    return {word for word in re.findall(r"\bmake ([a-z][a-z-]*)", text)}


def committed() -> list[Path]:
    """Files that git has, or would add."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-colab.txt"])
def test_every_dependency_is_pinned_within_its_range(name):
    pinned = pins(name)
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{name} has no pin for {requirement.name}"
        assert requirement.specifier.contains(version), f"{name}: {requirement.name} {version} is not in {requirement}"
        assert version.local is None, f"{name}: a build label fits one machine only"


def test_ranges_admit_the_torch_that_colab_has():
    (version,) = re.findall(r"Colab has torch (\d[\d.]*\d)", text_of("constraints-colab.txt"))
    (torch,) = [requirement for requirement in requirements() if requirement.name == "torch"]
    assert torch.specifier.contains(version)


def test_no_cuda_package_is_pinned():
    for name in ("constraints.txt", "constraints-colab.txt"):
        assert not [package for package in pins(name) if re.match("nvidia|cuda|triton", package)]


def test_conda_environment_installs_the_same_package_and_pins():
    *packages, pip = yaml.safe_load(text_of("environment.yml"))["dependencies"]
    python = Requirement(next(package for package in packages if package.startswith("python")))
    assert PROJECT["requires-python"] in str(python.specifier).split(",")
    assert "pip" in packages
    constraint, package = (line.split() for line in pip["pip"])
    assert constraint == ["-c", "constraints.txt"]
    assert package[0] == "-e"
    assert re.fullmatch(r"\.\[(\w+)\]", package[1])[1] in PROJECT["optional-dependencies"]


def test_nightly_versions_of_python_are_the_supported_ones():
    nightly = WORKFLOW["jobs"]["nightly"]["strategy"]["matrix"]["include"]
    used = {job["python"] for job in nightly}
    python = Requirement(yaml.safe_load(text_of("environment.yml"))["dependencies"][0])
    assert used == {f"3.{minor}" for minor in range(8, 30) if python.specifier.contains(f"3.{minor}")}
    assert {job["os"].split("-")[0] for job in nightly} == {"ubuntu", "macos", "windows"}
    assert {job["versions"] for job in nightly} == {"pinned", "colab", "oldest", "newest"}


def test_readme_names_commands_that_exist():
    assert {"course", "lab", "test", "bench"} <= commands_in(README)
    assert commands_in(README) <= TARGETS


def test_readme_lists_the_notebooks():
    listed = re.findall(r"^\| \[[^\]]+\]\(notebooks/(\w+\.ipynb)\)", README, re.MULTILINE)
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"


def test_readme_tells_how_much_is_downloaded():
    sources = json.loads(text_of("course_utils/data/sources.json"))["sources"]
    for profile, chosen in {"tiny": [s for s in sources if s["tiny"]], "laptop": sources}.items():
        (told,) = re.findall(rf"(\d+) MB for `{profile}`", README)
        assert int(told) == pytest.approx(sum(source["size"] for source in chosen) / 1e6, rel=0.1)


def test_readme_names_the_repository_of_pyproject():
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    named = set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:\.git)?(?=[/)\s`])", README))
    assert named == {repository}


def test_ci_runs_the_readmes_test_command():
    lines = [line for line in text_of(".ci/run").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert shlex.split(lines[-1]) == ["make", "test"]
    assert "`make test`" in README


def test_workflow_runs_ci_on_every_push_with_few_rights():
    triggers = WORKFLOW[True]  # YAML reads the key `on` as a truth value
    assert {"push", "pull_request", "schedule"} <= set(triggers)
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "concurrency" in WORKFLOW
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in WORKFLOW["jobs"].items()}
    assert ".ci/run" in commands["linux"]
    assert "if" not in WORKFLOW["jobs"]["linux"]
    for name, job in WORKFLOW["jobs"].items():
        assert job["timeout-minutes"] <= 90
        assert commands_in("\n".join(commands[name])) <= TARGETS


def test_committed_text_has_unix_line_ends_and_no_place_of_one_machine():
    # Written in two parts, so that this file does not match itself.
    places = re.compile(
        "|".join(["/ro" + "ot/", "/ho" + r"me/\w+/", "/Us" + r"ers/\w+", "/opt/wh" + "eels", r"C:\\U" + "sers"])
    )
    index = re.compile("pypi" + r"\.org|pythonhosted" + r"\.org|download\.pyt" + r"orch\.org", re.IGNORECASE)
    for path in committed():
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        text = data.decode("utf-8")
        assert "\r\n" not in text, f"{path.name} has CRLF line ends"
        assert not places.search(text), f"{path.name} names a place of one machine: {places.search(text)}"
        assert not index.search(text), f"{path.name} names a package index; learners may use another one"


def test_nothing_large_is_committed():
    assert not [path.name for path in committed() if path.stat().st_size > BIGGEST_FILE]
