"""The Hub on this machine with faults on demand: what networks, servers and accounts do to a client."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from local_hub.api import Handler
from local_hub.connection import Hub, Token
from local_hub.storage import HubError, Storage, is_lfs

WRITE, READ, STRANGER = "hf_plantedWriteToken0123456789abcdefgh", "hf_readToken", "hf_strangerToken"
QUOTA = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit."


class Fault:
    """What happens to requests whose method and path contain a text; `times` of them, after letting some pass."""

    def __init__(self, where: str, what: Callable[["FaultyHandler"], None], times: int = 1, after: int = 0):
        self.where, self.what, self.times, self.after, self.met = where, what, times, after, 0

    def strike(self, handler: "FaultyHandler") -> None:
        if self.where in f"{handler.command} {handler.path}":
            self.met += 1
            if self.after < self.met <= self.after + self.times:
                self.what(handler)


class FaultyHandler(Handler):
    """A connection to which faults happen."""

    pause = 0.0  # seconds before each block
    lose_answer = False

    def before(self) -> None:
        self.pause, self.lose_answer = 0.0, False
        self.server.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip())
        for fault in self.server.faults:
            fault.strike(self)

    def write_block(self, block: bytes) -> None:
        time.sleep(self.pause)
        super().write_block(block)

    def answer(self, value, status=200, **headers):
        if self.lose_answer and status == 200:
            cut(self)
        super().answer(value, status, **headers)


def cut(handler: FaultyHandler) -> None:
    handler.close_connection = True
    raise ConnectionResetError("cut by a test")


def error(status: int, message: str = "", **headers: str) -> Callable[[FaultyHandler], None]:
    def strike(handler: FaultyHandler) -> None:
        raise HubError(status, message or f"a test wanted {status}", **headers)

    return strike


def slow(seconds: float) -> Callable[[FaultyHandler], None]:
    """Before each block of a file, and before each answer."""

    def strike(handler: FaultyHandler) -> None:
        handler.pause = seconds
        time.sleep(seconds)

    return strike


def lost_answer(handler: FaultyHandler) -> None:
    """Do what was asked, and lose the answer."""
    handler.lose_answer = True


def busy(seconds: int) -> Callable[[FaultyHandler], None]:
    return error(429, "You have reached the rate limit.", **{"Retry-After": str(seconds)})


def full(handler: FaultyHandler) -> None:
    raise HubError(403, QUOTA)


class FaultyHub(Hub):
    """A Hub with the tests' tokens, whose content and faults are new for each test."""

    def __init__(self, folder: Path, port: int):
        super().__init__(folder, {}, port, FaultyHandler)
        self.renew(folder)

    def renew(self, folder: Path) -> None:
        self.storage, self.faults, self.requests = Storage(folder), [], []
        self.tokens = {WRITE: Token("ada", "write"), READ: Token("ada", "read"), STRANGER: Token("bob", "write")}

    def add_files(self, kind: str, name: str, files: dict[str, bytes | str], private: bool = False) -> None:
        """Make a public repository, as somebody else's upload."""
        self.storage.create(kind, name, private, "somebody")
        added = {}
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = self.storage.add([data])
            added[path] = self.storage.entry(entry["sha256"], lfs=is_lfs(path, len(data)))
        self.storage.change(kind, name, "main", added, [], author="somebody", title="Upload")

    def head(self, name: str, branch: str = "main", kind: str = "models") -> dict:
        return self.storage.commit(self.storage.repository(kind, name)["branches"][branch])

    def titles(self, name: str, branch: str = "main") -> list[str]:
        return [commit["title"] for commit in self.storage.history(self.head(name, branch)["id"])]

    def read(self, name: str, path: str, branch: str = "main", kind: str = "models") -> bytes:
        return self.storage.object(self.head(name, branch, kind)["files"][path]["sha256"]).read_bytes()

    def counted(self, text: str) -> int:
        return sum(text in request for request in self.requests)

    def read_json(self, name: str, path: str, branch: str = "main") -> dict:
        return json.loads(self.read(name, path, branch))
