"""The files of the Hub on this machine: uploads of large ones, and downloads of all, whole or in part."""

import json
import re
import secrets
from email.utils import formatdate

from local_hub.connection import BLOCK, Connection
from local_hub.storage import HubError


class Files(Connection):
    """LFS as clients upload with it, and /resolve."""

    def lfs_batch(self, repo: str, kind: str = "models") -> None:
        given = json.loads(self.body())
        self.opened(kind, repo, write=given["operation"] == "upload")
        if given["operation"] != "upload":
            raise HubError(501, "This Hub on your machine serves files under /resolve only.", "NotSupported")
        objects = []
        for wanted in given["objects"]:
            known = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.server.storage.has(wanted["oid"]):
                self.server.uploads[key := secrets.token_hex(16)] = wanted["oid"]
                links = {"upload": f"{self.server.url}/lfs/{key}", "verify": f"{self.server.url}/lfs/verify"}
                known["actions"] = {name: {"href": link} for name, link in links.items()}
            objects.append(known)
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, key: str) -> None:
        if (oid := self.server.uploads.get(key)) is None:
            raise HubError(403, "This upload link has expired.")
        self.server.storage.add(self.blocks(), expected=oid)
        self.answer({})

    def lfs_verify(self) -> None:
        if not self.server.storage.has(json.loads(self.body())["oid"]):
            raise HubError(404, "This object was not uploaded.")
        self.answer({})

    def resolve(self, repo: str, revision: str, path: str, kind: str = "models") -> None:
        """Serve a file, or a range of it. LFS files come from here, too: no other machine sees the token."""
        if self.command not in ("GET", "HEAD"):
            raise HubError(405, f"{self.command} is not allowed here.")
        storage, repository = self.server.storage, self.opened(kind, repo)
        commit = storage.commit(storage.resolve(repository, revision))
        known = {"X-Repo-Commit": commit["id"], "Accept-Ranges": "bytes"}
        if (file := commit["files"].get(path)) is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **known)
        known |= {"ETag": f'"{file["sha256"] if file["pointer"] else file["oid"]}"'}
        known |= {"Last-Modified": formatdate(usegmt=True), "Content-Type": "application/octet-stream"}
        if file["pointer"]:
            known |= {"X-Linked-Size": file["size"], "X-Linked-ETag": known["ETag"]}
        size, status, first, last = file["size"], 200, 0, file["size"] - 1
        if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
            last = min(size - 1, int(asked[2])) if asked[1] and asked[2] else size - 1
            if first > last:
                raise HubError(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
            status, known["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
        self.head(status, known | {"Content-Length": last - first + 1})
        if self.command == "GET":
            with storage.object(file["sha256"]).open("rb") as content:
                content.seek(first)
                left = last - first + 1
                while left > 0 and (block := content.read(min(BLOCK, left))):
                    self.write_block(block)
                    left -= len(block)

    def write_block(self, block: bytes) -> None:
        self.wfile.write(block)
