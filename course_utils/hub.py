"""Models on the Hub: who is logged in; pushes by hand, or while a training runs; the best run; going on elsewhere.

No token is ever shown. A push that fails is not the training's failure: it is tried again, and told at the end.
"""

import copy
import itertools
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import torch
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from course_utils import cards
from course_utils.training import checkpoints
from course_utils.training.tracking import dropped_messages

PAUSES = (2, 5, 15, 60, 300)  # seconds between two tries; the last one repeats
LAST_PAUSES = PAUSES[:3]  # when the training has ended, and people wait
SILENCE = 120  # seconds after which a connection counts as dead; the library would wait for ever
STATE = "checkpoint"  # folder of a branch with what a training needs to go on; beside it the model that others load
_STEP = re.compile(r"step (\d+): ([\d.]+) bits per byte")  # title of a commit
_REASONS = {
    401: "the Hub does not accept this token (missing, revoked or mistyped); run hf auth login",
    403: "this token may not write there; make one with the role write, and run hf auth login",
    404: "the repository or branch is not there: deleted, renamed, or hidden from this token",
    412: "another program pushed to the same branch; give each run a name of its own",
    429: "there were too many requests; the Hub wants a pause",
}


def login() -> tuple[str, str]:
    """Return the name of who is logged in ("" for nobody), and what the token may do, in a sentence."""
    if hf.get_token() is None:
        return "", "Nobody is logged in. Call huggingface_hub.notebook_login(), or run hf auth login in a terminal."
    try:
        found = hf.HfApi().whoami()
    except HfHubHTTPError as error:
        return "", f"Nobody is logged in: {explain(error)[0]}."
    access = found.get("auth", {}).get("accessToken", {})
    scopes = access.get("fineGrained", {}).get("scoped", [])
    places = [scope["entity"]["name"] for scope in scopes if "repo.write" in scope["permissions"]]
    if access.get("role") == "write":
        places = [found["name"], *(organization["name"] for organization in found.get("orgs", ()))]
    may = f"may write to {', '.join(places)}" if places else "may only read; to push, make one with the role write"
    return found["name"], f"{found['name']} is logged in. The token {may}."


def explain(error: BaseException) -> tuple[str, bool]:
    """Return why a request failed, without the token, and whether a person has to act before it can succeed."""
    text, cause = " ".join(f"{type(error).__name__}: {error}".split()), error
    while cause.__cause__ is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
    reason = _REASONS.get(status, f"the request failed ({text:.200})")
    if status in (402, 403, 413) and re.search("quota|storage|limit", str(cause), re.IGNORECASE):
        reason = "your storage on the Hub is full; delete there what you no longer need, such as old branches"
    return reason.replace(hf.get_token() or "\0", "(token)"), status in (400, 401, 402, 403, 404, 413)


def prepare(repo_id: str, branch: str = "main", private: bool = True) -> str:
    """Make repository and branch where they are missing; return the repository's present name, with its owner."""
    api = hf.HfApi()
    try:
        found = api.model_info(repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}").id
    except RepositoryNotFoundError:
        found = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if branch != "main":  # from the first commit, so that nothing of another run is in it
        api.create_branch(found, branch=branch, revision=api.list_repo_commits(found)[-1].commit_id, exist_ok=True)
    return found


def push(folder: Path, repo_id: str, branch: str = "main") -> str:
    """Push a folder as one commit; return the repository's present name. A step that is there is not pushed twice.

    The branch changes at the very end, and as a whole: a push that is killed leaves it as it was.
    """
    hf.get_session().timeout = SILENCE
    now, options = hf.HfApi().model_info(repo_id, revision=branch), {"commit_message": f"Upload {folder.name}"}
    if (folder / STATE).is_dir():
        run = checkpoints.read(folder / STATE)
        step, bits = run["position"]["step"], [e["eval_bits_per_byte"] for e in run["history"] if "eval_loss" in e]
        options = {"commit_message": f"step {step}: {bits[-1]:.4f} bits per byte", "delete_patterns": f"{STATE}/*"}
        if step in [done for done, _, _ in _steps(now.id, branch)]:
            return now.id
    hf.HfApi().upload_folder(repo_id=now.id, folder_path=folder, revision=branch, parent_commit=now.sha, **options)
    return now.id


def _steps(repo_id: str, branch: str) -> list[tuple[int, float, str]]:
    """Return (step, bits per byte, commit) of each step on the branch of a run, the last one first."""
    titles = ((_STEP.match(commit.title), commit) for commit in hf.HfApi().list_repo_commits(repo_id, revision=branch))
    return [(int(found[1]), float(found[2]), commit.commit_id) for found, commit in titles if found]


class Pusher:
    """Pushes the checkpoints of the run in `folder` to a branch named after it, while the training goes on.

    Where pushes are slower than the training, only the newest checkpoint is pushed.
    """

    def __init__(self, repo_id: str, folder: Path, config: Any, tokenizer: Any, licenses: Mapping[str, int]):
        """Push nothing yet; `config` and `tokenizer` go with the weights, `licenses` (documents each) into the card."""
        self.first_id, self.repo_id, self.branch, self.place = repo_id, repo_id, folder.name, folder / "hub"
        self.config, self.tokenizer, self.licenses = copy.deepcopy(config), tokenizer, licenses
        self.config.use_cache = True
        self.api, self.ending, self.problem, self.newest, self.future = hf.HfApi(), threading.Event(), "", None, None
        shutil.rmtree(self.place, ignore_errors=True)  # of a run that was killed
        hf.utils.disable_progress_bars()

    def submit(self, checkpoint: Path) -> None:
        """Begin to push a checkpoint, and return at once; its files may then be removed."""
        self.newest = new = self.place / checkpoint.name
        card = cards.model_card(self.repo_id, self.branch, checkpoints.read(checkpoint), self.licenses)
        try:
            shutil.copytree(checkpoint, new / STATE)
            if (weights := new / STATE / "model.safetensors").is_file():  # a model shared out among processes has none
                shutil.copy(weights, new)
            self.config.save_pretrained(new)
            self.tokenizer.save_pretrained(new)
            card.save(new / "README.md")
            self.future = self.api.run_as_future(self._push, new)
        except OSError as error:
            self.problem = f"it could not be copied ({error})"

    def _push(self, stage: Path) -> None:
        """Try until it is pushed, a newer one waits, a person has to do something, or the end has come."""
        last = iter(LAST_PAUSES)
        for old in self.place.glob("step-*"):
            if old.name < stage.name:
                shutil.rmtree(old, ignore_errors=True)
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            if stage != self.newest:
                return None
            try:
                with dropped_messages("huggingface_hub.utils._http", ""):  # of each try
                    self.repo_id = push(stage, self.repo_id, self.branch)
                self.problem = "" if stage == self.newest else self.problem
                return shutil.rmtree(stage, ignore_errors=True)
            except Exception as error:  # whatever it is, the training goes on
                self.problem, lasting = explain(error)
            if lasting or (self.ending.wait(pause) and (pause := next(last, None)) is None):
                return None
            time.sleep(pause if self.ending.is_set() else 0)

    def finish(self) -> str:
        """Wait for the last push; return what is left to do, in words, or "" for nothing."""
        self.ending.set()
        if self.future:
            self.future.result()
        if not self.problem:
            shutil.rmtree(self.place, ignore_errors=True)
            renamed = f"{self.first_id} is called {self.repo_id} now; name it so from now on."
            return renamed if self.repo_id != self.first_id else ""
        command = f"python -m course_utils hub push {self.newest} {self.repo_id} --branch {self.branch}"
        return f"{self.newest.name} is not on the Hub: {self.problem}. To push it later:\n{command}"


def open_branch(repo_id: str, folder: Path, resume: bool) -> str:
    """Make the branch of the run in `folder`, if need be; to `resume`, fetch its checkpoint where it is newer.

    Return the repository's name. What a person has to do is an error now. A run that has begun here needs no Hub.
    """
    local, place = checkpoints.find_last(folder / "checkpoints", lambda text: None), folder / "hub"
    try:
        found = prepare(repo_id, folder.name)
        steps = _steps(found, folder.name)
        name = f"step-{steps[0][0]:08d}" if steps else ""
        if name and resume and not (local and local.name >= name):
            shutil.rmtree(place, ignore_errors=True)
            hf.snapshot_download(found, revision=steps[0][2], allow_patterns=f"{STATE}/*", local_dir=place)
            for file in (place / STATE).glob("custom_checkpoint_*"):
                torch.load(file, weights_only=True)  # refuses a program, which Accelerate would run
            shutil.rmtree(target := folder / "checkpoints" / name, ignore_errors=True)  # a damaged one
            target.parent.mkdir(exist_ok=True)
            (place / STATE).replace(target)
    except Exception as error:
        reason, lasting = explain(error)
        if local and not lasting:
            return repo_id
        raise ConnectionError(f"cannot push to {repo_id}: {reason}. Or leave --push-to out.") from error
    if name and not resume and not local:
        raise ValueError(f"{found} has a run {folder.name}; go on with --resume auto, or choose another --output.")
    return found


def merge(repo_id: str, run: str = "") -> dict[str, float]:
    """Make main what the branch of the best run is, or of `run`, without its checkpoint; return all bits, its first.

    The best run needs the fewest bits per byte. Runs compare only where they held out the same text.
    """
    api = hf.HfApi()
    runs = {ref.name: _steps(repo_id, ref.name) for ref in api.list_repo_refs(repo_id).branches}
    bits = {name: steps[0][1] for name, steps in runs.items() if steps}
    if not bits or (run and run not in bits):
        raise ValueError(f"{repo_id} has no run {run!r}; its branches with a run: {', '.join(bits) or 'none'}.")
    best = run or min(bits, key=bits.__getitem__)
    head, main = (api.model_info(repo_id, revision=name).sha for name in (best, "main"))
    kept = {"README.md", ".gitattributes"}
    files = {f for f in api.list_repo_files(repo_id, revision=head) if not f.startswith(f"{STATE}/")} - kept
    gone = {*api.list_repo_files(repo_id, revision=main)} - files - kept
    card = Path(hf.hf_hub_download(repo_id, "README.md", revision=head)).read_text(encoding="utf-8")
    operations = [hf.CommitOperationCopy(file, file, src_revision=head) for file in sorted(files)]
    operations += map(hf.CommitOperationDelete, sorted(gone))
    operations.append(hf.CommitOperationAdd("README.md", card.replace(f', revision="{best}"', "").encode()))
    message = f"Merge the run {best}: {bits[best]:.4f} bits per byte"
    api.create_commit(repo_id, operations, commit_message=message, parent_commit=main)
    return {best: bits[best]} | bits
