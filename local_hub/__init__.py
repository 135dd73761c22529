"""A Hub on this machine. It speaks as much of the Hub's HTTP API as the course needs: `python -m local_hub`.

Models and data sets, small files and LFS, branches, tags, commits, private repositories, tokens that read or write.
What it does not have (Xet, pull requests, Spaces, large multi-part uploads) it refuses with an error that says so.
"""

import json
import secrets
import threading
from pathlib import Path

from local_hub.api import Handler
from local_hub.connection import Hub, Token


def open_hub(folder: Path, port: int = 0) -> tuple[Hub, dict[str, str]]:
    """Return a Hub that keeps everything in a folder, and the variables of its client; port 0 is any free one."""
    tokens = saved_tokens(folder)
    hub = Hub(folder, tokens, port, Handler)
    token = next(key for key, token in tokens.items() if token.role == "write")
    return hub, {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}


def start(folder: Path | str) -> dict[str, str]:
    """Serve until this process ends, in a thread; return what to set before the libraries are imported."""
    hub, variables = open_hub(Path(folder))
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    return variables | {"HF_HUB_OFFLINE": "0"}


def saved_tokens(folder: Path) -> dict[str, Token]:
    """Return the two tokens of a folder, made by chance when it is new."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (path := folder / "tokens.json").is_file():
        made = {f"hf_{secrets.token_hex(17)}": ["learner", role] for role in ("write", "read")}
        path.touch(mode=0o600)
        path.write_text(json.dumps(made), encoding="utf-8")
    return {key: Token(*value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
