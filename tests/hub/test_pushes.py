"""A training whose checkpoints go to the Hub: what is there, what faults do, and how it goes on elsewhere."""

import errno
import hashlib
import json
import os
import threading

import pytest
import torch
from faults import READ, STRANGER, WRITE, Fault, Token, busy, error, full, lost_answer, slow
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import RepositoryNotFoundError
from runs import small_config, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils import __main__ as cli
from course_utils import hub as course_hub
from course_utils import train
from local_hub.storage import metadata_errors

pytestmark = pytest.mark.usefixtures("fresh_accelerate", "no_pauses")
REPO = "ada/code"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(course_hub, "PAUSES", (0.02,))
    monkeypatch.setattr(course_hub, "LAST_PAUSES", (0.02,) * 8)  # more than a run has faults that pass


def run(folder, **settings):
    steps = {"train_steps": 40, "eval_steps": 10, "save_steps": 10, "eval_sequences": 8}
    return train.run_training(small_config(steps, push_to=REPO, **settings), folder, resume="auto")


def steps_of(hub, branch="first"):
    return [title.split(":")[0] for title in hub.titles(REPO, branch) if title.startswith("step")]


def is_whole(hub, branch="first"):
    """Return whether what the branch has now can be read, and has the checksums that it names."""
    commit = hub.head(REPO, branch)
    found = hub.read_json(REPO, "checkpoint/run.json", branch)
    files = {f"checkpoint/{name}": digest for name, digest in found["files"].items()}
    here = {path: entry["sha256"] for path, entry in commit["files"].items() if path.startswith("checkpoint/")}
    del here["checkpoint/run.json"]
    return files == here and commit["title"].startswith(f"step {found['position']['step']}:")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the weights of the same run without a Hub."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("plain") / "first"
    steps = {"train_steps": 40, "eval_steps": 10, "save_steps": 10, "eval_sequences": 8}
    train.run_training(small_config(steps), folder)
    return weights(folder)


def test_nothing_is_asked_of_the_hub_unless_wanted(hub, tmp_path):
    train.run_training(small_config({"train_steps": 2}), tmp_path / "first")
    assert hub.requests == []
    assert not (tmp_path / "first" / "hub").exists()


def test_a_run_is_on_a_branch_of_its_name_with_card_and_tokenizer(hub, tmp_path, plain, capsys):
    summary = run(tmp_path / "first")
    assert weights(tmp_path / "first") == plain
    assert steps_of(hub)[0] == "step 40"
    assert set(steps_of(hub)) <= {"step 10", "step 20", "step 30", "step 40"}
    assert is_whole(hub)
    assert hub.titles(REPO) == ["initial commit"]
    assert not (tmp_path / "first" / "hub").exists()
    assert HfApi().model_info(REPO).private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=STRANGER).model_info(REPO)
    model = AutoModelForCausalLM.from_pretrained(REPO, revision="first")
    tokenizer = AutoTokenizer.from_pretrained(REPO, revision="first")
    here = AutoModelForCausalLM.from_pretrained(tmp_path / "first" / "final")
    assert model.config.use_cache
    ids = tokenizer("import numpy as np", return_tensors="pt")["input_ids"]
    assert torch.equal(model(ids).logits, here(ids).logits)

    text = hub.read(REPO, "README.md", "first").decode()
    assert metadata_errors("models", text) == []
    card = ModelCard(text)
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["bits_per_byte"] == pytest.approx(summary.evaluation.bits_per_byte, abs=1e-4)
    assert 'revision="first"' in text
    for part in ("BSD-3-Clause", "| 40 |", "profile.learning_rate", "## Limits", "## Training text"):
        assert part in text
    assert str(tmp_path) not in text


OUT_OF_STEP = "A commit has happened since. Please refresh and try again."
TRANSIENT = {
    "errors": [
        Fault("/preupload/", error(500), 8),
        Fault("/info/lfs/", error(502), 7),
        Fault("PUT /lfs/", error(503), 8),
        Fault("/commit/", error(500), 2),
    ],
    "429": [Fault("/commit/", busy(1), 2)],
    "lost answer": [Fault("/commit/", lost_answer, 2)],
    "slow": [Fault("ada/code", slow(0.05), 200)],
    "stale parent": [Fault("/commit/", error(412, OUT_OF_STEP), 2)],
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_passing_faults_change_neither_model_nor_branch(name, hub, tmp_path, plain, capsys):
    hub.faults += TRANSIENT[name]
    run(tmp_path / "first")
    assert weights(tmp_path / "first") == plain
    assert all(fault.met for fault in TRANSIENT[name])
    assert steps_of(hub)[0] == "step 40"
    assert len(steps_of(hub)) == len(set(steps_of(hub)))
    assert is_whole(hub)
    assert "not on the Hub" not in capsys.readouterr().err


def test_the_training_does_not_wait_for_a_push(hub, tmp_path, plain, monkeypatch):
    """The first push waits for the end of the training; so one of both would wait for ever."""
    ended, finish, waited = threading.Event(), course_hub.Pusher.finish, []
    hub.faults.append(Fault("/preupload/", lambda handler: waited.append(ended.wait(60))))
    monkeypatch.setattr(course_hub.Pusher, "finish", lambda self: (ended.set(), finish(self))[1])
    run(tmp_path / "first")
    assert waited == [True]
    assert weights(tmp_path / "first") == plain
    assert steps_of(hub) == ["step 40", "step 10"]  # those in between were not worth a push any more


def test_a_full_disk_stops_pushes_and_not_the_training(hub, tmp_path, plain, monkeypatch, capsys):
    def no_room(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(course_hub.shutil, "copytree", no_room)
    run(tmp_path / "first")
    assert weights(tmp_path / "first") == plain
    assert "No space left" in capsys.readouterr().err


LASTING = {
    "revoked": ("does not accept this token", lambda hub: hub.tokens.pop(WRITE)),
    "reader": ("may not write there", lambda hub: hub.tokens.update({WRITE: Token("ada", "read")})),
    "quota": ("storage on the Hub is full", lambda hub: hub.faults.append(Fault("/info/lfs/", full, 99))),
    "quota at commit": ("storage on the Hub is full", lambda hub: hub.faults.append(Fault("/commit/", full, 99))),
    "deleted": ("is not there", lambda hub: hub.storage.delete("models", REPO)),
    "down": ("the request failed", lambda hub: hub.faults.append(Fault("/api/", error(500), 9999))),
}


@pytest.mark.parametrize("name", LASTING)
def test_lasting_faults_are_told_with_the_command_for_later(name, hub, tmp_path, plain, capsys, monkeypatch):
    reason, happen = LASTING[name]
    submit = course_hub.Pusher.submit

    def submit_and_break(self, checkpoint):
        if checkpoint.name.endswith("20"):
            self.future.result()
            happen(hub)
        submit(self, checkpoint)

    monkeypatch.setattr(course_hub.Pusher, "submit", submit_and_break)
    run(tmp_path / "first")
    assert weights(tmp_path / "first") == plain
    said = capsys.readouterr().err
    assert reason in said
    assert "python -m course_utils hub push" in said
    command = said.strip().splitlines()[-1].split()
    if name != "deleted":
        assert steps_of(hub) == ["step 10"]
        assert is_whole(hub)
    if name != "deleted":  # which the command makes again
        assert cli.main(command[3:]) == 1
        assert reason in capsys.readouterr().err
    hub.faults.clear()
    hub.tokens[WRITE] = Token("ada", "write")
    assert cli.main(command[3:]) == 0
    assert cli.main(command[3:]) == 0  # again changes nothing
    assert steps_of(hub) == ["step 40"] + ["step 10"] * (name != "deleted")
    assert is_whole(hub)
    assert WRITE not in said


def test_a_renamed_repository_gets_the_rest_under_its_new_name(hub, tmp_path, monkeypatch, capsys):
    submit = course_hub.Pusher.submit

    def submit_and_rename(self, checkpoint):
        if checkpoint.name.endswith("20"):
            self.future.result()
            HfApi().move_repo(REPO, "ada/better")
        submit(self, checkpoint)

    monkeypatch.setattr(course_hub.Pusher, "submit", submit_and_rename)
    run(tmp_path / "first")
    assert hub.titles("ada/better", "first")[0].startswith("step 40:")
    assert "ada/code is called ada/better now" in capsys.readouterr().err
    assert [repo["id"] for repo in hub.storage.repositories("models")] == ["ada/better"]


def test_another_machine_goes_on_from_the_branch_with_the_same_result(hub, tmp_path, plain):
    hub.faults.append(Fault("/commit/", full, 99, after=2))
    run(tmp_path / "one" / "first")
    there = steps_of(hub)
    assert there
    assert "step 40" not in there
    hub.faults.clear()
    run(tmp_path / "two" / "first")
    assert weights(tmp_path / "two" / "first") == plain
    assert "going on from" in (tmp_path / "two" / "first" / "logs" / "process-0.log").read_text()
    assert steps_of(hub)[0] == "step 40"
    assert len(steps_of(hub)) == len(set(steps_of(hub)))
    pushed = len(hub.titles(REPO, "first"))
    run(tmp_path / "three" / "first")  # which is done already
    assert len(hub.titles(REPO, "first")) == pushed
    assert weights(tmp_path / "three" / "first") == plain


class Program:
    """What a stranger could put into a checkpoint: loading it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_program_in_a_checkpoint_on_the_hub_is_not_run(hub, tmp_path):
    run(tmp_path / "first")
    torch.save(Program(tmp_path / "mark"), tmp_path / "program")
    data = (tmp_path / "program").read_bytes()
    state = hub.read_json(REPO, "checkpoint/run.json", "first")
    state["files"]["custom_checkpoint_0.pkl"] = hashlib.sha256(data).hexdigest()
    added = {"checkpoint/custom_checkpoint_0.pkl": hub.storage.add([data])}
    added["checkpoint/run.json"] = hub.storage.add([json.dumps(state).encode()])
    hub.storage.change("models", REPO, "first", added, [], author="ada", title="step 41: 1.0000 bits per byte")
    with pytest.raises(ConnectionError, match=r"weights_only|Weights only"):
        run(tmp_path / "elsewhere" / "first")
    assert not (tmp_path / "mark").exists()
    torch.load(tmp_path / "program", weights_only=False)  # it does run where nobody looks
    assert (tmp_path / "mark").exists()


def test_a_checkpoint_that_was_not_pushed_is_pushed_when_the_run_goes_on(hub, tmp_path):
    hub.faults.append(Fault("/commit/", full, 99))
    run(tmp_path / "first")
    assert steps_of(hub) == []
    hub.faults.clear()
    run(tmp_path / "first")
    assert steps_of(hub) == ["step 40"]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("hf_wrong", "does not accept"),
        (READ, "may not write"),
        (STRANGER, "may not write"),
        ("", "hf auth login"),
    ],
)
def test_what_a_person_must_do_is_said_before_the_training(token, reason, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "get_profile", lambda *_, **changes: small_config(changes).profile)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    options = ["--output", str(tmp_path / "first"), "--push-to", REPO, "--tracker", "none", "--max-steps", "2"]
    assert train.main(options) == 1
    said = capsys.readouterr()
    assert reason in said.err
    assert not (tmp_path / "first" / "final").exists()
    assert not token or token not in said.err + said.out


def test_the_best_run_becomes_main_for_strangers(hub, tmp_path, capsys):
    for name, rate in (("low", 1e-5), ("high", 3e-3)):
        steps = {"train_steps": 20, "eval_steps": 10, "save_steps": 10, "eval_sequences": 8, "learning_rate": rate}
        train.run_training(small_config(steps, push_to=REPO), tmp_path / name)
    HfApi().upload_file(repo_id=REPO, path_or_fileobj=b"old", path_in_repo="old.txt")
    assert cli.main(["hub", "merge", REPO]) == 0
    said = capsys.readouterr().out
    assert "main is the run high now" in said
    assert "low: " in said
    files = set(hub.head(REPO)["files"])
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", ".gitattributes"} <= files
    assert not [file for file in files if file.startswith("checkpoint/") or file == "old.txt"]
    assert "revision=" not in hub.read(REPO, "README.md").decode()
    HfApi().update_repo_settings(REPO, private=False)
    model = AutoModelForCausalLM.from_pretrained(REPO, token=False)
    here = AutoModelForCausalLM.from_pretrained(tmp_path / "high" / "final")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), here.parameters(), strict=True))
    assert cli.main(["hub", "merge", REPO, "--branch", "low"]) == 0
    assert hub.titles(REPO)[0].startswith("Merge the run low:")
    assert cli.main(["hub", "merge", REPO, "--branch", "none"]) == 2
    assert "has no run 'none'" in capsys.readouterr().err


def test_who_is_logged_in_and_what_the_token_may_do(hub, monkeypatch, capsys, tmp_path):
    assert cli.main(["hub", "whoami"]) == 0
    assert capsys.readouterr().out == "ada is logged in. The token may write to ada.\n"
    monkeypatch.setenv("HF_TOKEN", READ)
    assert course_hub.login()[0] == "ada"
    assert "only read" in course_hub.login()[1]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept" in course_hub.login()[1]
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "notebook_login" in course_hub.login()[1]
    monkeypatch.setenv("HF_TOKEN", WRITE)
    scope = {"entity": {"type": "org", "name": "lab"}, "permissions": ["repo.content.read", "repo.write"]}
    found = {"name": "ada", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}}}
    monkeypatch.setattr(HfApi, "whoami", lambda self: found)
    assert course_hub.login()[1] == "ada is logged in. The token may write to lab."


def test_the_token_is_nowhere(hub, tmp_path, capfd, monkeypatch):
    """Not in what is printed, logged, written or pushed, whatever goes wrong; even if the server repeats it."""

    def repeat(handler):
        error(500, f"no {handler.headers.get('Authorization')}")(handler)

    hub.faults += [Fault("/preupload/", repeat, 7), Fault("/commit/", repeat, 1), Fault("/commit/", full, 99, after=2)]
    run(tmp_path / "first")
    cli.main(["hub", "whoami"])
    cli.main(["hub", "push", str(tmp_path / "first" / "final"), REPO])
    hub.faults[:] = [Fault("/preupload/", repeat, 99)]
    cli.main(["hub", "push", str(tmp_path / "first" / "final"), REPO])
    hub.faults[:] = [Fault("/api/", repeat, 9999)]
    cli.main(["hub", "merge", REPO])
    hub.tokens.clear()
    cli.main(["hub", "whoami"])
    cli.main(["hub", "push", str(tmp_path / "first" / "final"), REPO])
    said = "".join(capfd.readouterr())
    assert "hub push" in said
    assert WRITE not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if WRITE.encode() in path.read_bytes()] == []


def test_commands_say_what_they_need(hub, tmp_path, capsys):
    assert cli.main(["hub", "push", str(tmp_path)]) == 2
    assert "hub push FOLDER owner/name" in capsys.readouterr().err
    assert cli.main(["hub", "push", str(tmp_path / "none"), REPO]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert hub.storage.repositories("models") == []
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.txt").write_text("a")
    assert cli.main(["hub", "push", str(tmp_path / "m"), "m", "--public"]) == 0
    assert capsys.readouterr().out.endswith("is on the Hub: ada/m, branch main\n")
    assert not HfApi().model_info("ada/m").private
