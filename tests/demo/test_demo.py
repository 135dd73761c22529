"""The demo as people use it: a real server on loopback, a real (untrained) model, and a real browser."""

import json
import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest
import requests
from bs4 import BeautifulSoup
from gradio_client import Client
from gradio_client.exceptions import AppError
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from course_utils import artifacts, cache, demo
from course_utils.__main__ import main
from course_utils.models.causal import build_causal_lm
from course_utils.models.generation import stream_completions
from course_utils.profiles import get_profile
from course_utils.training import checkpoints

# Gradio uses options that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing")


@pytest.fixture(scope="module")
def model(session_tokenizer):
    return build_causal_lm(get_profile("tiny"), session_tokenizer).eval()


@pytest.fixture(scope="module")
def folder(model, session_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    session_tokenizer.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def url(model, session_tokenizer):
    page = demo.build_demo(model, session_tokenizer, "<b>A test</b>")
    demo.launch(page, "127.0.0.1", free_port(), open_browser=False)
    yield page.local_url
    page.close()


def indented(model, tokenizer, **options):
    """A seed with which the model begins a text with white space, and what it writes then."""
    for seed in range(100):
        *_, texts = stream_completions(model, tokenizer, "x", candidates=2, seed=seed, one_block=True, **options)
        if any(text != text.lstrip() for text in texts):
            return seed, texts


def test_programs_get_the_text_that_the_model_wrote_and_no_files(url, model, session_tokenizer, folder):
    client = Client(url, verbose=False, analytics_enabled=False)
    seed, texts = indented(model, session_tokenizer, new_tokens=8)
    options = {"candidates": 2, "new_tokens": 8, "temperature": 0.4, "top_p": 0.95, "top_k": 0, "one_block": True}
    status, *boxes = client.predict("x", seed=seed, **options, api_name="/complete")
    assert "Done" in status
    assert [box["value"] for box in boxes[:2]] == texts
    for wrong in ({"prompt": ""}, {"candidates": 1000}, {"temperature": -1}):
        with pytest.raises(AppError, match="prompt is empty" if "prompt" in wrong else str(*wrong.values())):
            client.predict(**({"prompt": "x", "seed": 1} | options | wrong), api_name="/complete")

    code = "<script>alert('x')</script>\nif a < b and c & d:\n\tprint(\"é中\")\n"
    page = BeautifulSoup(client.predict(code, api_name="/highlight"), "html.parser")
    assert page.pre.get_text() == code
    assert not page.find_all("script")

    for path in (folder / "config.json", "/etc/passwd", "pyproject.toml"):
        assert requests.get(f"{url}gradio_api/file={path}", timeout=10).status_code in (403, 404)
    assert requests.post(url + "gradio_api/upload", files={"files": b"x" * 100}, timeout=10).status_code >= 400


def test_a_browser_shows_the_text_as_written_and_stop_stops_the_work(window, url, model, session_tokenizer):
    wait = WebDriverWait(window, 60, 0.05).until

    def press(name):
        window.find_element(By.ID, name).click()

    def wait_to_read(word):
        wait(lambda _: word in window.execute_script("return document.getElementById('status').innerText"))

    seed, texts = indented(model, session_tokenizer, new_tokens=48)
    window.get(url)
    for area, text in (("#prompt textarea", "x"), ("#seed input", str(seed))):
        found = wait(lambda _, area=area: window.find_elements(By.CSS_SELECTOR, area))
        found[0].send_keys(Keys.CONTROL, "a", Keys.NULL, text)
    press("stop")  # with nothing to stop, it does not stop the next run
    press("complete")
    wait_to_read("Done")
    shown = [area.get_property("value") for area in window.find_elements(By.CSS_SELECTOR, ".candidate textarea")]
    assert shown == texts

    steps = []
    hook = model.register_forward_hook(lambda *_: time.sleep(0.2) or steps.append(1))
    for late in (0.0, 0.03, 0.06, 0.09):  # within the 0.1 s between two updates of the page
        press("complete")
        wait_to_read("Writing")
        time.sleep(late)
        press("stop")
        wait_to_read("Stopped")
        before = len(steps)
        time.sleep(0.6)
        assert len(steps) == before
        wait_to_read("Stopped")  # no late update has replaced it
    hook.remove()
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [link for link in asked if not link.startswith((url, "data:", "blob:", "chrome"))] == []


def test_the_command_serves_this_machine_only_and_leaves_no_files(folder, tmp_path):
    port = str(free_port())
    command = [sys.executable, "-m", "course_utils", "demo", "--model", str(folder), "--port", port, "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        listening = {c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"}
        process.terminate()
    assert said == f"The demo runs at http://127.0.0.1:{port}/ (Ctrl-C ends it).\n"
    assert listening == {"127.0.0.1"}
    assert list(tmp_path.iterdir()) == []


def test_bad_ports_hosts_and_models_are_told_before_anything_is_served(folder, tmp_path, monkeypatch, capsys):
    def refused(*options):
        return main(["demo", "--no-browser", *options]), "".join(capsys.readouterr())

    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(artifacts, "REFERENCE_MODEL", tmp_path / "none")
    code, said = refused("--profile", "tiny")
    assert code == 2
    assert "python -m course_utils run 04 --profile tiny" in said
    assert "no reference model" in said
    assert list(tmp_path.iterdir()) == []  # nothing is trained for it
    assert "give 1 to 65535" in refused("--model", str(folder), "--port", "70000")[1]
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        with socket.create_server((host, 0)) as taken:
            code, said = refused("--model", str(folder), "--host", host, "--port", str(taken.getsockname()[1]))
        assert code == 1
        assert ("everyone who reaches this machine" in said) is warned
    assert refused("--model", str(folder), "--host", "256.0.0.1")[0] == 1
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    BloomForCausalLM(BloomConfig(vocab_size=2048, hidden_size=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    assert "BloomForCausalLM has no fixed context" in refused("--model", str(tmp_path))[1]


def test_the_learners_own_model_comes_before_the_reference_model(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(artifacts, "REFERENCE_MODEL", shutil.copytree(folder, tmp_path / "reference"))
    checkpoints.seal(artifacts.REFERENCE_MODEL)
    tiny = get_profile("tiny")
    assert demo.saved_model(tiny) == (tmp_path / "reference", "The course's reference model")
    assert "run 04 --profile tiny" in (said := capsys.readouterr().out)
    assert "reference model answers" in said
    own = cache.build_once("pretrained_model", {"profile": tiny.pretraining}, lambda folder: None)
    assert demo.saved_model(tiny)[0] == own
