"""The Hub on this machine, used through the real clients."""

import base64
import json
import os
import re
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from datasets import Dataset
from faults import READ, STRANGER, WRITE
from huggingface_hub import CommitOperationCopy, HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)


@pytest.fixture
def api(hub):
    return HfApi()


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a small text, weights for LFS, an empty file and a sub-folder."""
    (place := tmp_path / "content" / "sub").mkdir(parents=True)
    (place.parent / "a.txt").write_text("one")
    (place.parent / "w.safetensors").write_bytes(os.urandom(200_000))
    (place / "empty.bin").write_bytes(b"")
    return place.parent


def commit(hub, path, text):
    """Send a commit that the client would not send."""
    operation = {"path": path, "content": base64.b64encode(text.encode()).decode(), "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": "by hand"}}, {"key": "file", "value": operation}]
    headers, data = {"Authorization": f"Bearer {WRITE}"}, "\n".join(map(json.dumps, lines))
    return huggingface_hub.get_session().post(f"{hub.url}/api/models/ada/m/commit/main", content=data, headers=headers)


def test_a_folder_goes_up_and_comes_back_whole(api, hub, folder):
    assert api.whoami()["name"] == "ada"
    assert api.create_repo("m").repo_id == "ada/m"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("m")
    api.create_repo("m", exist_ok=True)
    info = api.upload_folder(repo_id="ada/m", folder_path=folder)
    assert info.oid == api.model_info("ada/m").sha
    got = snapshot_download("ada/m")
    for path in ("a.txt", "w.safetensors", "sub/empty.bin"):
        assert open(f"{got}/{path}", "rb").read() == (folder / path).read_bytes()  # noqa: PTH123, SIM115
    assert hub.counted("PUT /lfs/") == 1
    again = api.upload_folder(repo_id="ada/m", folder_path=folder)
    assert again.oid == info.oid  # nothing has changed
    siblings = {s.rfilename: s for s in api.model_info("ada/m", files_metadata=True).siblings}
    assert siblings["w.safetensors"].lfs.size == 200_000
    assert siblings["a.txt"].lfs is None


def test_branches_tags_history_and_trees(api, hub, folder):
    api.create_repo("m")
    first = api.upload_folder(repo_id="ada/m", folder_path=folder, commit_message="first").oid
    api.create_branch("ada/m", branch="runs/one")
    api.create_tag("ada/m", tag="v1")
    (folder / "a.txt").write_text("two")
    api.upload_folder(
        repo_id="ada/m", folder_path=folder, revision="runs/one", commit_message="second", delete_patterns="sub/*"
    )
    refs = api.list_repo_refs("ada/m")
    assert {b.name for b in refs.branches} == {"main", "runs/one"}
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", first)]
    commits = api.list_repo_commits("ada/m", revision="runs/one")
    assert [c.title for c in commits] == ["second", "first", "initial commit"]
    assert commits[0].authors == ["ada"]
    assert commits[0].created_at >= commits[1].created_at
    for revision, text in {"main": "one", "v1": "one", "runs/one": "two", first[:10]: "one"}.items():
        with open(hf_hub_download("ada/m", "a.txt", revision=revision)) as file:  # noqa: PTH123
            assert file.read() == text, revision
    entries = [(e.path, type(e).__name__) for e in api.list_repo_tree("ada/m")]
    assert entries == [(".gitattributes", "RepoFile"), ("a.txt", "RepoFile"), ("sub", "RepoFolder"),
                       ("w.safetensors", "RepoFile")]  # fmt: skip
    assert [e.path for e in api.list_repo_tree("ada/m", "sub")] == ["sub/empty.bin"]
    assert "sub/empty.bin" in api.list_repo_files("ada/m")
    copies = [CommitOperationCopy(path, path, src_revision="runs/one") for path in ("a.txt", "w.safetensors")]
    api.create_commit("ada/m", copies, commit_message="merge", parent_commit=first)
    assert hub.read("ada/m", "a.txt") == b"two"
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(repo_id="ada/m", path_or_fileobj=b"x", path_in_repo="x", parent_commit=first)
    api.delete_tag("ada/m", tag="v1")
    api.delete_branch("ada/m", branch="runs/one")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_commits("ada/m", revision="runs/one")
    with pytest.raises(HfHubHTTPError, match="cannot be deleted"):
        api.delete_branch("ada/m", branch="main")


def test_who_may_read_and_write_what(api, hub):
    api.create_repo("secret", private=True)
    api.upload_file(repo_id="ada/secret", path_or_fileobj=b"x", path_in_repo="x")
    assert HfApi(token=READ).model_info("ada/secret").private
    for other in (HfApi(token=STRANGER), HfApi(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            other.model_info("ada/secret")
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download("ada/secret", "x")
        assert [m.id for m in other.list_models(author="ada")] == []
    api.update_repo_settings("ada/secret", private=False)
    assert [m.id for m in HfApi(token=False).list_models(author="ada")] == ["ada/secret"]
    refusals = {READ: "write token", STRANGER: "rights", "hf_wrong": "credentials", False: "logged in"}
    for token, reason in refusals.items():
        with pytest.raises(HfHubHTTPError, match=reason):
            HfApi(token=token).upload_file(repo_id="ada/secret", path_or_fileobj=b"y", path_in_repo="y")
    with pytest.raises(HfHubHTTPError, match="rights"):
        HfApi(token=STRANGER).create_repo("ada/another")
    assert hub.titles("ada/secret") == ["Upload x with huggingface_hub", "initial commit"]
    api.delete_repo("ada/secret")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("ada/secret")


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        ("license: whatever", '"license" must be'),
        ("pipeline_tag: dancing", '"pipeline_tag" must be'),
        ("model-index: [{results: [{}]}]", '"model-index" lacks'),
        ("- a", "names with values"),
        ("a: b: c", "not YAML"),
    ],
)
def test_a_card_with_wrong_metadata_is_refused(card, fault, api, hub):
    api.create_repo("m")
    with pytest.raises(ValueError, match=fault):  # the client asks before
        api.upload_file(repo_id="ada/m", path_or_fileobj=f"---\n{card}\n---\n".encode(), path_in_repo="README.md")
    answer = commit(hub, "README.md", f"---\n{card}\n---\n")
    assert answer.status_code == 400
    assert fault in answer.json()["error"]
    ModelCard("---\nlicense: mit\npipeline_tag: text-generation\n---\n# A card").push_to_hub("ada/m")
    assert api.model_info("ada/m").card_data.license == "mit"
    assert api.model_info("ada/m").pipeline_tag == "text-generation"


def test_what_it_does_not_support_is_refused_in_words(api, hub):
    api.create_repo("m")
    for ask in (
        lambda: api.super_squash_history("ada/m"),
        lambda: api.create_repo("s", repo_type="space", space_sdk="static"),
        lambda: api.upload_file(repo_id="ada/m", path_or_fileobj=b"x", path_in_repo="x", create_pr=True),
        lambda: api.update_repo_settings("ada/m", gated="auto"),
        lambda: api.get_repo_discussions("ada/m").__next__(),
    ):
        with pytest.raises(HfHubHTTPError, match="on your machine"):
            ask()
    with pytest.raises(huggingface_hub.errors.RemoteEntryNotFoundError):
        hf_hub_download("ada/m", "nothing.txt")
    assert "not a path" in commit(hub, "../x", "x").json()["error"]
    client = huggingface_hub.get_session()
    for url in ("models/..%2F..%2Fetc/revision/main", "models/a..b/c", "spaces/a/b", "../lfs/0123", "../etc/passwd"):
        answer = client.get(f"{hub.url}/api/{url}")
        assert 400 <= answer.status_code <= 501
        assert answer.json()["error"]


def test_the_trainer_pushes_while_it_trains(hub, tmp_path, code_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=len(code_tokenizer), n_positions=64))
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7, 8]] * 16, "labels": [[5, 6, 7, 8]] * 16})
    arguments = TrainingArguments(
        str(tmp_path / "run"), push_to_hub=True, hub_model_id="ada/trained", hub_private_repo=True, save_steps=4,
        hub_strategy="every_save", max_steps=8, per_device_train_batch_size=2, report_to="none", use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=code_tokenizer)
    trainer.train()
    trainer.push_to_hub("the end")
    assert "Training in progress, step 4" in hub.titles("ada/trained")  # the next one only if this is done by then
    assert "README.md" in hub.head("ada/trained")["files"]
    loaded = AutoModelForCausalLM.from_pretrained("ada/trained")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_ranges_etags_and_errors_are_those_of_the_hub(api, hub, folder):
    api.create_repo("m")
    api.upload_folder(repo_id="ada/m", folder_path=folder)
    client, url = huggingface_hub.get_session(), f"{hub.url}/ada/m/resolve/main/w.safetensors"
    content = (folder / "w.safetensors").read_bytes()
    for asked, wanted in {"bytes=5-9": content[5:10], "bytes=199990-": content[-10:], "bytes=-7": content[-7:]}.items():
        answer = client.get(url, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, wanted)
    assert client.get(url, headers={"Range": "bytes=200000-"}).status_code == 416
    head = client.head(url)
    assert int(head.headers["Content-Length"]) == int(head.headers["X-Linked-Size"]) == 200_000
    assert head.headers["X-Repo-Commit"] == api.model_info("ada/m").sha
    assert head.headers["ETag"] == head.headers["X-Linked-ETag"]
    missing = client.get(f"{hub.url}/ada/m/resolve/main/none")
    assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert "error" in missing.json()


def test_started_by_hand_it_says_what_to_set(repository, tmp_path):
    command = [sys.executable, "-m", "local_hub", "--folder", str(tmp_path / "h"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as server:
        try:
            lines = [server.stdout.readline() for _ in range(7)]
            found = dict(re.findall(r"export (\w+)=(\S+)", "".join(lines)))
            assert found.keys() == {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"}
            client = [sys.executable, "-c", "import huggingface_hub, json; print(json.dumps(huggingface_hub.whoami()))"]
            environment = os.environ | found | {"HF_HUB_OFFLINE": "0"}
            done = subprocess.run(client, env=environment, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)["name"] == "learner"
        finally:
            server.terminate()
