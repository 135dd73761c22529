"""What the repository promises outside its code: pins, the README, the commands, what is committed."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
BIGGEST_FILE, BIGGEST_WEIGHTS = 2_000_000, 16_000_000  # bytes


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
README = text_of("README.md")
TARGETS = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
JOBS = yaml.safe_load(text_of(".github/workflows/tests.yml"))["jobs"]
LINES = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
REQUIREMENTS = {found.name: found for found in map(Requirement, LINES) if found.name != PROJECT["name"]}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-colab.txt"])
def test_every_dependency_is_pinned_within_its_range(name):
    lines = [line for line in text_of(name).splitlines() if line and not line.startswith("#")]
    pinned = {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in lines}
    for requirement in REQUIREMENTS.values():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{name}: {requirement.name} {version} is not in {requirement}"
        assert version.local is None, f"{name}: a build label fits one machine only"
    assert not [package for package in pinned if re.match("nvidia|cuda|triton", package)]


def test_the_supported_versions_of_torch_and_python_are_those_of_colab_conda_and_ci():
    (torch,) = re.findall(r"Colab has torch (\d[\d.]*\d)", text_of("constraints-colab.txt"))
    assert REQUIREMENTS["torch"].specifier.contains(torch)
    supported = Requirement(yaml.safe_load(text_of("environment.yml"))["dependencies"][0]).specifier
    assert PROJECT["requires-python"] in str(supported).split(",")
    used = {job["python"] for job in JOBS["nightly"]["strategy"]["matrix"]["include"]}
    assert used == {f"3.{minor}" for minor in range(8, 30) if supported.contains(f"3.{minor}")}


def test_the_readme_is_true_of_commands_notebooks_links_and_sizes():
    assert {"course", "lab", "test", "bench"} <= set(re.findall(r"\bmake ([a-z][a-z-]*)", README)) <= TARGETS
    listed = re.findall(r"^\| \[[^\]]+\]\(notebooks/(\w+\.ipynb)\)", README, re.MULTILINE)
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    sources = json.loads(text_of("course_utils/data/sources.json"))["sources"]
    for profile, chosen in {"tiny": [s for s in sources if s["tiny"]], "laptop": sources}.items():
        (told,) = re.findall(rf"(\d+) MB for `{profile}`", README)
        assert int(told) == pytest.approx(sum(source["size"] for source in chosen) / 1e6, rel=0.1)
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    assert set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:\.git)?(?=[/)\s`])", README)) == {repository}


def test_all_places_name_the_same_version():
    version = PROJECT["version"]
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == version
    assert re.findall(r"^## ([\d.]+)$", text_of("CHANGELOG.md"), re.MULTILINE)[0] == version
    assert set(re.findall(r"/blob/([^/]+)/notebooks", README)) == {f"v{version}"}


def test_ci_runs_the_readmes_test_command():
    assert text_of(".ci/run").splitlines()[-1] == "make test"
    assert ".ci/run" in [step.get("run") for step in JOBS["linux"]["steps"]]
    commands = "\n".join(step.get("run", "") for job in JOBS.values() for step in job["steps"])
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", commands)) <= TARGETS


def test_committed_text_has_unix_line_ends_and_no_place_of_one_machine():
    # Written in parts, so that this file does not match itself.
    places = re.compile("/ro" + "ot/|/ho" + r"me/\w+/|/Us" + r"ers/\w+|/opt/wh" + r"eels|C:\\U" + "sers")
    index = re.compile("pypi" + r"\.org|pythonhosted" + r"\.org|download\.pyt" + r"orch\.org", re.IGNORECASE)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for path in [ROOT / name for name in names if name and (ROOT / name).is_file()]:
        data = path.read_bytes()
        most = BIGGEST_WEIGHTS if path.parent.name == "reference" else BIGGEST_FILE
        assert len(data) <= most, f"{path.name} is too large"
        if b"\0" not in data[:8192]:
            text = data.decode("utf-8")
            assert "\r\n" not in text, f"{path.name} has CRLF line ends"
            assert not (found := places.search(text) or index.search(text)), f"{path.name} names {found}"
