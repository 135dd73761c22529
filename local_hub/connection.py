"""One connection to the Hub on this machine: reading requests, knowing the caller, answering, refusing."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from local_hub.storage import HubError, Moved, Storage

BLOCK = 1 << 16


class Token(NamedTuple):
    """Whom a token stands for, and what it may do: "read" or "write"."""

    user: str
    role: str


class Hub(ThreadingHTTPServer):
    """The server; `tokens` may be changed while it runs, as when one is revoked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, tokens: dict[str, Token], port: int, handler: type):
        super().__init__(("127.0.0.1", port), handler)
        self.storage, self.tokens = Storage(folder), tokens
        self.uploads: dict[str, str] = {}  # key of an upload → the hash that its content must have
        self.url = f"http://127.0.0.1:{self.server_port}"


class Connection(BaseHTTPRequestHandler):
    """Finds who answers a request in `routes`: the method, a pattern of the path, the name of one of our methods."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Hub
    routes: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    def handle_one(self) -> None:
        """Answer a request; every refusal is JSON with a sentence."""
        self.unread = True
        try:
            self.before()
            path = urlsplit(self.path).path
            for method, pattern, name in self.routes:
                if method in (self.command, "*") and (found := re.fullmatch(pattern, path)):
                    parts = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
                    return getattr(self, name)(**parts)
            self.body()
            raise HubError(501, f"This Hub on your machine does not support {self.command} {path}.", "NotSupported")
        except Moved as moved:
            if old := found.groupdict().get("repo"):
                return self.redirect(old, moved.args[0])
            self.refuse(HubError(404, f"It is called {moved.args[0]} now.", "RepoNotFound"))
        except HubError as error:
            self.refuse(error)
        except (KeyError, TypeError, ValueError) as error:
            self.refuse(HubError(400, f"The request is not as expected: {type(error).__name__} {error}"))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one

    def before(self) -> None:
        """Do nothing; tests put their faults here."""

    def log_message(self, *args: Any) -> None:
        """Say nothing: a path may hold what is nobody's business."""

    # Reading the request

    def blocks(self) -> Iterator[bytes]:
        """Yield the request's body, which has a length or comes in chunks."""
        self.unread = False
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            yield (block := self._exactly(min(BLOCK, left)))
            left -= len(block)

    def _exactly(self, size: int) -> bytes:
        if len(data := self.rfile.read(size)) < size:
            raise ConnectionResetError("the client went away")
        return data

    def body(self) -> bytes:
        return b"".join(self.blocks())

    def caller(self) -> Token | None:
        """Return whose token came with the request; None without one."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if given and given not in self.server.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.server.tokens.get(given)

    def opened(self, kind: str, repo: str, write: bool = False) -> dict[str, Any]:
        """Return a repository that the caller may read, or write."""
        caller, repository = self.caller(), self.server.storage.repository(kind, repo)
        owner = caller is not None and caller.user == repository["id"].split("/")[0]
        if repository["private"] and not owner:
            raise HubError(404 if caller else 401, "Repository not found", "RepoNotFound")
        if write:
            self.may_write(repository["id"])
        return repository

    def may_write(self, name: str) -> Token:
        caller = self.caller()
        if caller is None:
            raise HubError(401, "You must be logged in to do that.")
        if caller.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if caller.user != name.split("/")[0]:
            raise HubError(403, f"You don't have the rights to change or create {name}.")
        return caller

    # Answering

    def answer(self, value: Any, status: int = 200, **headers: Any) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def send(self, status: int, data: bytes, headers: dict[str, Any]) -> None:
        self.head(status, headers | {"Content-Length": len(data)})
        if self.command != "HEAD":
            self.wfile.write(data)

    def head(self, status: int, headers: dict[str, Any]) -> None:
        if self.unread and self.command in ("POST", "PUT", "DELETE"):  # else its body would be the next request
            for _ in self.blocks():
                pass
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def refuse(self, error: HubError) -> None:
        known = {"X-Error-Message": " ".join(str(error).split())} | error.headers
        known |= {"X-Error-Code": error.code} if error.code else {}
        self.answer({"error": str(error)}, error.status, **known)

    def redirect(self, old: str, new: str) -> None:
        place = self.path.replace(f"/{old}", f"/{quote(new)}", 1)
        self.send(307, b"", {"Location": place})

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client went away
            self.close_connection = True
