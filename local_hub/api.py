"""What the Hub on this machine answers to each request of its API."""

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from local_hub.files import Files
from local_hub.storage import HubError, is_lfs, metadata, metadata_errors

_REPO = r"(?P<repo>[^/]+(?:/[^/]+)??)"  # with owner, or without, as in `gpt2`
_ACTIONS = "revision|refs|commits|tree|paths-info|branch|tag|settings|preupload|commit|auth-check"
ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/(?P<action>create|move)|/api/validate-yaml", "post_api"),
    ("DELETE", r"/api/repos/(?P<action>delete)", "post_api"),
    ("GET", r"/api/(?P<kind>models|datasets)", "listing"),
    ("*", rf"/api/(?P<kind>models|datasets)/{_REPO}/(?P<action>{_ACTIONS})(?:/(?P<rest>.*))?", "repo_api"),
    ("GET", rf"/api/(?P<kind>models|datasets)/{_REPO}", "repo_api"),
    ("POST", rf"/(?:(?P<kind>datasets)/)?{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<key>\w+)", "lfs_put"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("*", rf"/(?:(?P<kind>datasets)/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


class Handler(Files):
    """The API."""

    routes = ROUTES

    def whoami(self) -> None:
        if (caller := self.caller()) is None:
            raise HubError(401, "Invalid username or password.")
        access = {"displayName": f"{caller.user}'s", "role": caller.role}
        auth = {"type": "access_token", "accessToken": access}
        self.answer({"type": "user", "id": caller.user, "name": caller.user, "orgs": [], "auth": auth})

    def post_api(self, action: str = "") -> None:
        storage, given = self.server.storage, json.loads(self.body())
        kind = f"{given.get('type') or 'model'}s"
        if kind not in ("models", "datasets"):
            raise HubError(501, f"This Hub on your machine has models and data sets, no {kind}.", "NotSupported")
        if not action:
            errors = metadata_errors(f"{given['repoType']}s", given["content"])
            self.answer({"errors": [{"message": text} for text in errors], "warnings": []}, 400 if errors else 200)
        elif action == "move":
            self.may_write(given["toRepo"])
            self.opened(kind, given["fromRepo"], write=True)
            storage.move(kind, given["fromRepo"], given["toRepo"])
            self.answer({})
        else:
            if (caller := self.caller()) is None:
                raise HubError(401, "You must be logged in to do that.")
            name = f"{given.get('organization') or caller.user}/{given['name']}"
            self.may_write(name)
            if action == "delete":
                self.opened(kind, name, write=True)
                return self.answer(storage.delete(kind, name))
            private = given.get("visibility") == "private" or bool(given.get("private"))
            try:
                storage.create(kind, name, private, caller.user)
                status = {"status": 200}
            except HubError as error:
                status = {"status": error.status, "X-Error-Message": str(error)}
            url = f"{self.server.url}/{'' if kind == 'models' else 'datasets/'}{name}"
            self.answer({"url": url, "name": name}, **status)

    def listing(self, kind: str) -> None:
        wanted = {name: values[0].lower() for name, values in parse_qs(urlsplit(self.path).query).items()}
        found, caller = [], self.caller()
        for repository in self.server.storage.repositories(kind):
            owner = repository["id"].split("/")[0]
            seen = not repository["private"] or (caller is not None and caller.user == owner)
            fits = wanted.get("author", owner.lower()) == owner.lower()
            if seen and fits and wanted.get("search", "") in repository["id"].lower():
                found.append(self.described(repository, "main"))
        self.answer(found)

    def repo_api(self, kind: str, repo: str, action: str = "", rest: str = "") -> None:
        """Answer /api/models/NAME and what stands below it."""
        method = f"{self.command.lower()}_{(action or 'info').replace('-', '_')}"
        if not hasattr(self, method):
            what = f"{self.command} of {action}"
            raise HubError(501, f"This Hub on your machine does not support {what}.", "NotSupported")
        write = self.command != "GET" and action != "paths-info"
        getattr(self, method)(self.opened(kind, repo, write), rest)

    def described(self, repository: dict[str, Any], revision: str) -> dict[str, Any]:
        storage = self.server.storage
        commit = storage.commit(storage.resolve(repository, revision))
        siblings = []
        for path, file in commit["files"].items():
            lfs = {"sha256": file["sha256"], "size": file["size"], "pointerSize": file["pointer"]}
            more = {"lfs": lfs} if file["pointer"] else {}
            siblings.append({"rfilename": path, "size": file["size"], "blobId": file["oid"], **more})
        card = commit["files"].get("README.md")
        data = metadata(storage.object(card["sha256"]).read_text(encoding="utf-8", errors="replace")) if card else {}
        known = {name: data[name] for name in ("pipeline_tag", "library_name", "model-index") if name in (data or {})}
        return known | {
            "_id": repository["id"], "id": repository["id"], "modelId": repository["id"],
            "author": repository["id"].split("/")[0], "sha": commit["id"], "lastModified": commit["date"],
            "createdAt": repository["created"], "private": repository["private"], "gated": False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": (data or {}).get("tags") or [], "cardData": data, "siblings": siblings,
            "usedStorage": sum(file["size"] for file in commit["files"].values()),
        }  # fmt: skip

    def get_info(self, repository: dict[str, Any], rest: str) -> None:
        self.answer(self.described(repository, "main"))

    def get_revision(self, repository: dict[str, Any], rest: str) -> None:
        self.answer(self.described(repository, rest))

    def get_auth_check(self, repository: dict[str, Any], rest: str) -> None:
        if rest == "write":
            self.may_write(repository["id"])
        self.answer({})

    def get_refs(self, repository: dict[str, Any], rest: str) -> None:
        refs = {"converts": [], "pullRequests": []}
        for name, place in (("branches", "heads"), ("tags", "tags")):
            found = repository[name].items()
            refs[name] = [{"name": n, "ref": f"refs/{place}/{n}", "targetCommit": oid} for n, oid in found]
        self.answer(refs)

    def get_commits(self, repository: dict[str, Any], rest: str) -> None:
        names = ("id", "title", "message", "date")
        storage = self.server.storage
        found = storage.history(storage.resolve(repository, rest))
        self.answer([{n: c[n] for n in names} | {"authors": [{"user": c["author"]}]} for c in found])

    def get_tree(self, repository: dict[str, Any], rest: str) -> None:
        revision, _, folder = rest.partition("/")
        if revision not in repository["branches"]:  # a branch may have a slash in its name, which the client quotes
            raw = urlsplit(self.path).path.split("/tree/", 1)[1]
            revision, folder = (unquote(part) for part in (raw + "/").split("/", 1))
            folder = folder.strip("/")
        query = parse_qs(urlsplit(self.path).query)
        recursive, expand = (query.get(name, ["false"])[0].lower() in ("true", "1") for name in ("recursive", "expand"))
        found = self.inside(repository, revision, folder, recursive, expand)
        if folder and not found:
            raise HubError(404, f"{folder} is no folder of {revision}.", "EntryNotFound")
        self.answer(found)

    def post_paths_info(self, repository: dict[str, Any], rest: str) -> None:
        text = self.body().decode()
        if self.headers.get("Content-Type", "").startswith("application/json"):
            given = json.loads(text)
        else:
            given = parse_qs(text)
            given["expand"] = given.get("expand", ["false"])[0].lower() in ("true", "1")
        wanted = {path.strip("/") for path in given.get("paths", [])}
        every = self.inside(repository, rest, "", True, bool(given["expand"]))
        self.answer([entry for entry in every if entry["path"] in wanted])

    def inside(self, repository: dict[str, Any], revision: str, folder: str, recursive: bool, expand: bool) -> list:
        """Return files and folders, all of them or those that lie in `folder` itself."""
        storage = self.server.storage
        commit = storage.commit(storage.resolve(repository, revision))
        last = {"lastCommit": {"id": commit["id"], "title": commit["title"], "date": commit["date"]}} if expand else {}
        start, found = f"{folder}/" if folder else "", {}
        for path, file in commit["files"].items():
            if not path.startswith(start):
                continue
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts)):
                place = start + "/".join(parts[:depth])
                found[place] = {"type": "directory", "path": place, "size": 0, "oid": commit["id"]} | last
            lfs = {"oid": file["sha256"], "size": file["size"], "pointerSize": file["pointer"]}
            more = {"lfs": lfs} if file["pointer"] else {}
            found[path] = {"type": "file", "path": path, "size": file["size"], "oid": file["oid"]} | more | last
        return [entry for path, entry in sorted(found.items()) if recursive or "/" not in path[len(start) :]]

    def post_branch(self, repository: dict[str, Any], rest: str) -> None:
        start = json.loads(self.body() or b"{}").get("startingPoint") or "main"
        self.name_commit(repository["kind"], repository["id"], "branches", rest, start)

    def post_tag(self, repository: dict[str, Any], rest: str) -> None:
        self.name_commit(repository["kind"], repository["id"], "tags", json.loads(self.body())["tag"], rest)

    def name_commit(self, kind: str, repo: str, names: str, name: str, start: str) -> None:
        storage = self.server.storage
        with storage.lock:
            repository = storage.repository(kind, repo)
            if name in repository[names]:
                raise HubError(409, f"Reference already exists: {name}")
            if not re.fullmatch(r"(?!.*(?:\.\.|//|@\{))[\w][\w./@{}+-]*(?<![./])", name):
                raise HubError(400, f"{name!r} is not a name that Git allows.")
            repository[names][name] = storage.resolve(repository, start)
            storage.save(repository)
        self.answer({})

    def delete_branch(self, repository: dict[str, Any], rest: str) -> None:
        if rest == "main":
            raise HubError(403, "The branch main cannot be deleted.")
        self.forget(repository["kind"], repository["id"], "branches", rest)

    def delete_tag(self, repository: dict[str, Any], rest: str) -> None:
        self.forget(repository["kind"], repository["id"], "tags", rest)

    def forget(self, kind: str, repo: str, names: str, name: str) -> None:
        with self.server.storage.lock:
            repository = self.server.storage.repository(kind, repo)
            if repository[names].pop(name, None) is None:
                raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
            self.server.storage.save(repository)
        self.answer({})

    def put_settings(self, repository: dict[str, Any], rest: str) -> None:
        given = json.loads(self.body())
        if given.keys() - {"private", "visibility"}:
            raise HubError(501, f"This Hub on your machine has no settings {sorted(given)}.", "NotSupported")
        private = given.get("private", given.get("visibility") == "private")
        with self.server.storage.lock:
            now = self.server.storage.repository(repository["kind"], repository["id"])
            self.server.storage.save(now | {"private": bool(private)})
        self.answer({"private": bool(private)})

    def post_preupload(self, repository: dict[str, Any], rest: str) -> None:
        storage, answers = self.server.storage, []
        files = storage.commit(storage.resolve(repository, rest))["files"]
        for file in json.loads(self.body())["files"]:
            lfs, there = is_lfs(file["path"], file["size"]), files.get(file["path"])
            oid = {"oid": there["sha256" if there["pointer"] else "oid"]} if there else {}
            mode = "lfs" if lfs else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | oid)
        self.answer({"files": answers})

    def post_commit(self, repository: dict[str, Any], rest: str) -> None:
        """Take a commit, one operation in each line; everything is looked at before anything is changed."""
        if "create_pr" in urlsplit(self.path).query:
            raise HubError(501, "This Hub on your machine has no pull requests.", "NotSupported")
        storage, header, added, removed = self.server.storage, {}, {}, []
        for line in self.body().splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "header":
                header = value
            elif key == "file":
                content = base64.b64decode(value["content"], validate=True)
                if value["path"] == "README.md" and (errors := metadata_errors(repository["kind"], content.decode())):
                    raise HubError(400, f"Invalid metadata in README.md. - {'; '.join(errors)}")
                added[value["path"]] = storage.add([content])
            elif key == "lfsFile":
                added[value["path"]] = storage.entry(value["oid"], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                removed.append(value["path"].rstrip("/") + "/" * (key == "deletedFolder"))
            else:
                raise HubError(501, f"This Hub on your machine has no operation {key!r}.", "NotSupported")
        oid = storage.change(
            repository["kind"], repository["id"], rest, added, removed, author=self.caller().user,
            title=header["summary"], message=header.get("description", ""), parent=header.get("parentCommit", ""),
        )  # fmt: skip
        place = "" if repository["kind"] == "models" else "datasets/"
        url = f"{self.server.url}/{place}{repository['id']}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
