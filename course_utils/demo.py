"""A page in the browser for trying a model: completions of a prompt, and code with surprising places marked.

It listens on this machine only unless told otherwise, needs no network, and shows generated code without running it.
"""

import errno
import html
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging

from course_utils import artifacts, environment
from course_utils.data.tokenization import load_tokenizer
from course_utils.evaluation.surprise import surprise_html, token_surprise
from course_utils.models.causal import count_parameters
from course_utils.models.generation import BLOG_PROMPTS, BOOK_PROMPTS, TUTORIAL_PROMPTS, stream_completions
from course_utils.profiles import Profile

MOST_CHARACTERS = 20_000  # of a prompt or a text to highlight
MOST_CANDIDATES = 4
MOST_WAITING = 64  # requests in the queue; one runs at a time, since one already uses all cores
_PAUSE = 0.1  # seconds between two updates of the page
EXAMPLES = TUTORIAL_PROMPTS | BOOK_PROMPTS | BLOG_PROMPTS
_FAULTY = """import numpy as pd
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
for i in range(10):
    ax.plot(x, i, label=y)
ax.set_xlabel("x")
ax.set_xlabel("y")
plt.show()
"""
# Fonts of the machine: a page that asks elsewhere for its fonts would not work without a network.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "Consolas", "monospace"]}
_SHOWN = {"lines": 2, "max_lines": 20, "interactive": False, "buttons": ["copy"], "elem_classes": "code"}
_CSS = ".code textarea {font-family: var(--font-mono); font-size: 14px; tab-size: 4}"


def saved_model(profile: Profile) -> Path:
    """Return the folder of the learner's own model of notebook 04, without training or building anything.

    Raises `ValueError` that tells how to train it, and how long that takes here, if there is none.
    """
    found = artifacts.find_pretrained(profile)
    if found is not None:
        return found
    cost = environment.profile_cost(profile, environment.describe(), steps=1)
    duration = environment.readable_duration(cost.minutes)
    raise ValueError(
        f"no model of the profile {profile.name!r} has been trained here yet. Train it with\n"
        f"  python -m course_utils run 04 --profile {profile.name}\n"
        f"(training: about {duration}, with what else runs here now), or name the folder of another model with --model."
    )


def load(folder: Path) -> tuple[Any, Any]:
    """Load model and tokenizer from a folder; `ValueError` if there is no folder, or no model or tokenizer in it."""
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no model (no config.json). Give a folder written by model.save_pretrained, which also "
            "has the files of tokenizer.save_pretrained."
        )
    tokenizer = load_tokenizer(folder)
    try:
        return artifacts.load_model(folder), tokenizer
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} holds no causal language model: {str(error).splitlines()[0]}") from error


def build_demo(model: Any, tokenizer: Any, name: str = "") -> Any:
    """Build the page for a model as `gradio.Blocks`; launch it with `launch_options()`.

    Endpoints for programs: `/complete` and `/highlight`. `name` says on the page which model it is.
    """
    import gradio as gr

    page = _Page(model, tokenizer)
    context = model.config.max_position_embeddings
    facts = f"{count_parameters(model) / 1e6:.1f} million parameters, context of {context} tokens"
    with gr.Blocks(title="Code completion", analytics_enabled=False) as demo:
        gr.Markdown(
            f"# Code completion\n{html.escape(name) or 'A model'}: {facts}. Code that a model writes may be wrong or "
            "harmful. It is shown here and never run."
        )
        with gr.Tab("Complete"):
            _completion_tab(gr, page, context)
        with gr.Tab("Find surprising code"):
            _highlighting_tab(gr, page)
    return demo.queue(max_size=MOST_WAITING, default_concurrency_limit=1)


def _text(gr: Any, value: str, label: str, name: str) -> Any:
    options = {"lines": 9, "max_lines": 20, "max_length": MOST_CHARACTERS}
    return gr.Textbox(value, label=label, elem_id=name, elem_classes="code", **options)


def _completion_tab(gr: Any, page: "_Page", context: int) -> None:
    longest = max(1, min(256, context // 2))  # half the context stays for the prompt
    with gr.Row():
        with gr.Column(scale=3):
            prompt = _text(gr, EXAMPLES["scatter plot"], "Prompt", "prompt")
            gr.Examples([[text] for text in EXAMPLES.values()], prompt, label="Examples", example_labels=list(EXAMPLES))
            with gr.Row():
                start = gr.Button("Complete", variant="primary", elem_id="complete")
                stop = gr.Button("Stop", elem_id="stop")
            status = gr.Markdown(elem_id="status")
            candidates = [  # no gr.Code: it strips its text, so that the first line would lose its indentation
                gr.Textbox(label=f"Candidate {i}", visible=False, elem_id=f"text-{i}", **_SHOWN)
                for i in range(1, MOST_CANDIDATES + 1)
            ]
        with gr.Column(scale=2):
            controls = [
                gr.Slider(0, 2, 0.4, step=0.05, label="Temperature", info="0: always the most likely token"),
                gr.Slider(0.05, 1, 0.95, step=0.05, label="Top-p", info="the most likely tokens with this sum"),
                gr.Slider(0, 200, 0, step=1, label="Top-k", info="this many most likely tokens; 0: all"),
                gr.Slider(1, MOST_CANDIDATES, 2, step=1, label="Candidates"),
                gr.Slider(1, longest, min(48, longest), step=1, label="New tokens"),
                gr.Number(1, label="Seed", precision=0, minimum=0, maximum=2**32, elem_id="seed"),
                gr.Checkbox(True, label="Only up to the next block", info="class, def, comment, …"),
            ]
    stopped = gr.State()  # one for each open page
    inputs, outputs = [prompt, *controls, stopped], [status, *candidates]
    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    pressed = start.click(_stop_signal, stopped, stopped, **at_once)
    pressed.then(page.complete, inputs, outputs, api_name="complete", concurrency_id="model")
    # The run itself says that it was stopped. With cancels=[run] its last update could arrive after that word.
    stop.click(lambda signal: signal and signal.set(), stopped, None, **at_once)


def _highlighting_tab(gr: Any, page: "_Page") -> None:
    gr.Markdown("Hover over a token to see its surprise, and what the model would have expected.")
    code = _text(gr, _FAULTY, "Code", "code")
    button = gr.Button("Highlight", variant="primary", elem_id="highlight")
    result = gr.HTML(elem_id="highlighted")
    button.click(page.highlight, code, result, api_name="highlight", concurrency_id="model")


def _stop_signal(last: threading.Event | None) -> threading.Event:
    """Return the signal for the next run: the last one, unless Stop was pressed since, for that run or for none."""
    return threading.Event() if last is None or last.is_set() else last


class _Page:
    """What the page's buttons do; wrong input becomes a message on the page."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def complete(
        self, prompt, temperature, top_p, top_k, candidates, new_tokens, seed, one_block, stopped=None
    ) -> Iterator[list[Any]]:
        """Yield a status line and the candidates, a few times per second, until the work is done or stopped."""
        import gradio as gr

        _check(prompt, "prompt")
        options = {"new_tokens": int(new_tokens), "candidates": int(candidates), "top_k": int(top_k)}
        options |= {"temperature": temperature, "top_p": top_p, "seed": int(seed or 0), "one_block": one_block}
        begin = shown = time.monotonic()
        try:
            for progress in stream_completions(self.model, self.tokenizer, prompt, **options):
                if stopped and stopped.is_set():
                    yield self._view(gr, progress, f"Stopped: {progress.tokens} of up to {new_tokens} tokens.")
                    return
                if time.monotonic() - shown > _PAUSE:
                    shown = time.monotonic()
                    yield self._view(gr, progress, f"Writing: {progress.tokens} of up to {new_tokens} tokens …")
        except ValueError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        status = f"Done: up to {progress.tokens} tokens in {time.monotonic() - begin:.1f} s."
        if one_block and not all(progress.texts):
            status += " A candidate is empty where the model began the next block at once."
        yield self._view(gr, progress, status)

    def _view(self, gr: Any, progress: Any, status: str) -> list[Any]:
        if progress.tokens_cut:
            status += f" The prompt was too long for the model: its first {progress.tokens_cut} tokens were left out."
        texts = [*progress.texts, *[None] * (MOST_CANDIDATES - len(progress.texts))]
        return [status, *(gr.Textbox(text, visible=text is not None) for text in texts)]

    def highlight(self, code: str) -> str:
        """Return the code as HTML with its surprising tokens marked."""
        _check(code, "code")
        return surprise_html(token_surprise(self.model, self.tokenizer, code))


def _check(text: str | None, what: str) -> None:
    import gradio as gr

    if not text or not text.strip():
        raise gr.Error(f"The {what} is empty. Write some code first.", print_exception=False)
    if len(text) > MOST_CHARACTERS:
        message = f"The {what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are allowed. Shorten it."
        raise gr.Error(message, print_exception=False)


def launch_options() -> dict[str, Any]:
    """Return how the page is launched: no sharing, no uploads, no outside fonts, no links to other sites."""
    import gradio as gr

    return {
        "theme": gr.themes.Default(**_FONTS, primary_hue="blue").set(block_info_text_color="*neutral_600"),
        "css": _CSS,
        "share": False,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "max_file_size": 1,  # byte: nothing can be uploaded
        "footer_links": [],
        "quiet": True,
    }


def serve(folder: Path, host: str, port: int | None, browser: bool, name: str = "") -> None:
    """Load a model and serve its page until Ctrl-C; a host that others can reach is warned about."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError('the demo needs Gradio: python -m pip install -c constraints.txt -e ".[demo]"') from error
    logging.disable_progress_bar()
    model, tokenizer = load(folder)
    next(stream_completions(model, tokenizer, "x", new_tokens=1))  # the first pass is slow: before anyone waits for it
    demo = build_demo(model, tokenizer, name)
    if not _is_loopback(host):
        print(f"Warning: everyone who reaches this machine over the network can use the demo ({host}).", flush=True)
    # Gradio asks its own server whether it runs, which must not go through a proxy.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    port = _free_port(host, port)
    demo.launch(server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, **launch_options())
    print(f"The demo runs at {demo.local_url} (Ctrl-C ends it).", flush=True)
    demo.block_thread()


def _free_port(host: str, wanted: int | None) -> int:
    """Find a port before Gradio does, which would try a wrong host for minutes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in [wanted] if wanted else range(7860, 7960):
        try:
            with socket.create_server((host, port), family=family):
                return port
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OSError(f"cannot listen on the host {host!r} ({error}); leave --host out.") from error
    raise OSError(f"the port {wanted or '7860 to 7959'} cannot be used; is it taken? Choose another one with --port.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
