"""What a Hub keeps in a folder: contents by their hash, commits with whole trees, repositories that name commits."""

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"  # the first commit of every repository
LFS_ENDINGS = (".safetensors", ".bin", ".pkl", ".pt", ".parquet", ".arrow", ".gz", ".zip", ".npy")
LFS_BYTES = 5_000_000  # larger files are LFS whatever their name
NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?<![.-])")
_LICENSES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0 artistic-2.0
    bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 ecl-2.0 epl-1.0 epl-2.0
    eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0
    odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl wtfpl unknown other
"""
_TASKS = """
    text-generation text-classification token-classification fill-mask feature-extraction sentence-similarity
    question-answering summarization translation table-question-answering zero-shot-classification
    text-ranking other
"""
_SIZES = "n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B n>1T"


class HubError(Exception):
    """A refusal: the HTTP status, a sentence, and the code that clients look at."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Moved(Exception):
    """The repository has another name now."""


class Storage:
    """Repositories in `folder`. Whatever is changed becomes visible at once, as a whole, or not at all."""

    def __init__(self, folder: Path):
        self.folder, self.lock = folder, threading.RLock()
        for name in ("objects", "commits", "repositories", "moved"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # Contents

    def has(self, sha256: str) -> bool:
        return self.object(sha256).is_file()

    def object(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise HubError(400, f"{sha256!r:.80} is not a SHA-256.")
        return self.folder / "objects" / sha256

    def add(self, blocks: Iterable[bytes], expected: str = "") -> dict[str, Any]:
        """Keep a content; return what a tree says about it. Refuses a content whose hash is not the expected one."""
        temporary, digest = self.folder / f"{secrets.token_hex(8)}.part", hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                for block in blocks:
                    digest.update(block)
                    file.write(block)
            if expected and digest.hexdigest() != expected:
                raise HubError(400, f"The content has the SHA-256 {digest.hexdigest()}, not {expected}.")
            temporary.replace(self.object(digest.hexdigest()))
        finally:
            temporary.unlink(missing_ok=True)
        return self.entry(digest.hexdigest(), lfs=bool(expected))

    def entry(self, sha256: str, lfs: bool) -> dict[str, Any]:
        """Return a file of a tree: its content, size, Git's hash of what Git sees, and for LFS the pointer's size."""
        if not self.has(sha256):
            raise HubError(400, f"The LFS object {sha256} was never uploaded.")
        path = self.object(sha256)
        size = path.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        seen = pointer if lfs else path.read_bytes()
        oid = hashlib.sha1(b"blob %d\0" % len(seen) + seen).hexdigest()
        return {"sha256": sha256, "size": size, "oid": oid, "pointer": len(pointer) if lfs else 0}

    # Repositories

    def _path(self, place: str, kind: str, name: str) -> Path:
        parts = name.split("/")
        if len(parts) > 2 or not all(NAME.fullmatch(part) for part in parts):
            raise HubError(400, f"{name!r:.120} is not the name of a repository, like owner/name.", "RepoNotFound")
        return self.folder / place / f"{kind}--{'--'.join(parts)}.json"

    def repository(self, kind: str, name: str) -> dict[str, Any]:
        """Return a repository; raise `Moved` with its new name, or `HubError`."""
        try:
            return json.loads(self._path("repositories", kind, name).read_bytes())
        except FileNotFoundError:
            if (moved := self._path("moved", kind, name)).is_file():
                raise Moved(json.loads(moved.read_bytes())) from None
            raise HubError(404, f"There is no {kind[:-1]} {name}.", "RepoNotFound") from None

    def repositories(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in sorted(self.folder.glob(f"repositories/{kind}--*.json"))]

    def save(self, repository: Mapping[str, Any]) -> None:
        _write(self._path("repositories", repository["kind"], repository["id"]), repository)

    def create(self, kind: str, name: str, private: bool, author: str) -> dict[str, Any]:
        with self.lock:
            if (path := self._path("repositories", kind, name)).is_file():
                raise HubError(409, f"You already created this {kind[:-1]} repo: {name}.")
            self._path("moved", kind, name).unlink(missing_ok=True)
            repository = {"kind": kind, "id": name, "private": private, "created": now(), "branches": {}, "tags": {}}
            files = {".gitattributes": self.add([ATTRIBUTES])}
            repository["branches"]["main"] = self._commit([], files, author, "initial commit", "")
            _write(path, repository)
            return repository

    def move(self, kind: str, old: str, new: str) -> None:
        with self.lock:
            repository = self.repository(kind, old)
            if self._path("repositories", kind, new).is_file():
                raise HubError(409, f"There is a {kind[:-1]} {new} already.")
            self.save(repository | {"id": new})
            _write(self._path("moved", kind, old), new)
            self._path("repositories", kind, old).unlink()

    def delete(self, kind: str, name: str) -> None:
        with self.lock:
            self.repository(kind, name)
            self._path("repositories", kind, name).unlink()

    # Commits

    def resolve(self, repository: Mapping[str, Any], revision: str) -> str:
        """Return the commit that a branch, a tag, a commit or its beginning names."""
        for names in (repository["branches"], repository["tags"]):
            if revision in names:
                return names[revision]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            for start in (*repository["branches"].values(), *repository["tags"].values()):
                for commit in self.history(start):
                    if commit["id"].startswith(revision):
                        return commit["id"]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, oid: str) -> dict[str, Any]:
        return json.loads((self.folder / "commits" / f"{oid}.json").read_bytes())

    def history(self, oid: str) -> Iterable[dict[str, Any]]:
        """Yield a commit and those before it."""
        while oid:
            yield (found := self.commit(oid))
            oid = found["parents"][0] if found["parents"] else ""

    def change(
        self, kind: str, name: str, branch: str, added: Mapping[str, Any], removed: Iterable[str], *, author: str,
        title: str, message: str = "", parent: str = "",
    ) -> str:  # fmt: skip
        """Add a commit to a branch; `removed` are files, and folders with a slash at the end."""
        with self.lock:
            repository = self.repository(kind, name)
            if branch not in repository["branches"]:
                raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            head = repository["branches"][branch]
            if parent and parent != head:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = self.commit(head)["files"]
            for path in removed:
                gone = [file for file in files if file == path or (path.endswith("/") and file.startswith(path))]
                if not gone:
                    raise HubError(404, f"{path} is not in {branch}.", "EntryNotFound")
                files = {file: entry for file, entry in files.items() if file not in gone}
            for path in added:
                if not path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
                    raise HubError(400, f"{path!r} is not a path in a repository.")
            repository["branches"][branch] = self._commit([head], files | added, author, title, message)
            self.save(repository)
            return repository["branches"][branch]

    def _commit(self, parents: list[str], files: Mapping[str, Any], author: str, title: str, message: str) -> str:
        commit = {"parents": parents, "author": author, "date": now(), "title": title, "message": message}
        commit["files"] = dict(sorted(files.items()))
        oid = hashlib.sha1(json.dumps(commit).encode()).hexdigest()
        _write(self.folder / "commits" / f"{oid}.json", commit | {"id": oid})
        return oid


def is_lfs(path: str, size: int) -> bool:
    """Return whether a file goes to large storage."""
    return size > LFS_BYTES or path.lower().endswith(LFS_ENDINGS)


def now() -> str:
    """Return the time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03}Z"


def metadata(text: str) -> Any:
    """Return what stands between the `---` lines at the top of a card; raises `yaml.YAMLError`."""
    found = re.match(r"---\r?\n(.*?)\r?\n?---\s*(?:\n|$)", text, re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def metadata_errors(kind: str, text: str) -> list[str]:
    """Return what the Hub refuses in the metadata of a card."""
    try:
        data = metadata(text) or {}
    except yaml.YAMLError as error:
        return [f"the metadata are not YAML: {' '.join(str(error).split())}"]
    if not isinstance(data, dict):
        return ["the metadata must be names with values"]
    tasks = "pipeline_tag" if kind == "models" else "task_categories"
    allowed = {"license": _LICENSES, tasks: _TASKS, "size_categories": _SIZES}
    errors = [
        f'"{name}" must be one of {", ".join(words.split())}, not {value!r}'
        for name, words in allowed.items()
        for value in _listed(data.get(name))
        if value not in words.split()
    ]
    errors += [f'"language" has no {code!r}' for code in _listed(data.get("language")) if len(str(code)) not in (2, 3)]
    for name in ("tags", "datasets", "metrics"):
        errors += [f'"{name}" must hold texts, not {v!r}' for v in _listed(data.get(name)) if not isinstance(v, str)]
    for model in _listed(data.get("model-index")):
        for result in model.get("results", [{}]):
            needed = {"task": ["type"], "dataset": ["type", "name"]}
            lacks = [f"{a}.{b}" for a, names in needed.items() for b in names if not (result.get(a) or {}).get(b)]
            metrics = result.get("metrics") or [{}]
            lacks += [f"metrics.{b}" for b in ("type", "value") if any(metric.get(b) is None for metric in metrics)]
            lacks += [] if model.get("name") else ["name"]
            errors += [f'"model-index" lacks {name}' for name in lacks]
    return errors


def _listed(value: Any) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.part")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
