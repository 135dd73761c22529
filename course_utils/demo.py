"""A page in the browser for trying a model: completions, and surprising code marked; it never runs generated code."""

import html
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

try:
    import gradio as gr
except ImportError as error:
    raise ValueError('the demo needs Gradio: python -m pip install -c constraints.txt -e ".[demo]"') from error

from course_utils import artifacts
from course_utils.data.tokenization import load_tokenizer
from course_utils.evaluation.surprise import surprise_picture, token_surprise
from course_utils.models.causal import context_length, count_parameters
from course_utils.models.generation import stream_completions
from course_utils.models.prompts import BLOG_PROMPTS, BOOK_PROMPTS, TUTORIAL_PROMPTS
from course_utils.profiles import Profile

MOST_CANDIDATES = 4
EXAMPLES = TUTORIAL_PROMPTS | BOOK_PROMPTS | BLOG_PROMPTS
_FAULTY = 'for i in range(10):\n    ax.plot(x, i, label=y)\nax.set_xlabel("x")\nax.set_xlabel("y")'
_CSS = ".code textarea {font-family: var(--font-mono); font-size: 14px; tab-size: 4}"


def saved_model(profile: Profile) -> tuple[Path, str]:
    """Return folder and name of the learner's own model of notebook 04, or else, saying so, of the reference model."""
    if found := artifacts.find_pretrained(profile):
        return found, f"Your model of the profile {profile.name}"
    missing = (
        f"no model of the profile {profile.name!r} has been trained here yet. Train it with\n"
        f"  python -m course_utils run 04 --profile {profile.name}\nor name the folder of another one with --model."
    )
    try:
        folder = artifacts.reference_model()
    except ValueError as error:
        raise ValueError(f"{missing}\nAnd {error}") from None
    print(f"N{missing[1:]}\nUntil then, the course's reference model answers.", flush=True)
    return folder, "The course's reference model"


def build_demo(model: Any, tokenizer: Any, name: str) -> gr.Blocks:
    """Build the page for a model; programs can use its endpoints `/complete` and `/highlight`."""
    context, use = context_length(model), {"concurrency_id": "model", "concurrency_limit": 1}  # a run uses all cores
    with gr.Blocks(title="Code completion", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Code completion\n{html.escape(name)}: {count_parameters(model) / 1e6:.1f} million parameters, context "
            f"of {context} tokens (it reads the end of longer prompts). Code that a model writes may be wrong or "
            "harmful. It is shown here and never run."
        )
        with gr.Tab("Complete"), gr.Row():
            with gr.Column(scale=3):
                prompt = _text_area("Prompt", EXAMPLES["scatter plot"])
                gr.Examples([[text] for text in EXAMPLES.values()], prompt, example_labels=list(EXAMPLES))
                with gr.Row():
                    start, stop = gr.Button("Complete", elem_id="complete"), gr.Button("Stop", elem_id="stop")
                status = gr.Markdown(elem_id="status")
                # Not gr.Code, which strips its text: the first line would lose its indentation.
                hidden = {"visible": False, "interactive": False, "buttons": ["copy"], "elem_classes": "code candidate"}
                texts = [gr.Textbox(label=f"Candidate {i + 1}", **hidden) for i in range(MOST_CANDIDATES)]
            with gr.Column(scale=2):
                controls = _controls(min(256, context // 2))  # half the context stays for the prompt
        with gr.Tab("Find surprising code"):
            code = _text_area("Code", _FAULTY)
            button, marked = gr.Button("Highlight", elem_id="highlight"), gr.HTML(elem_id="highlighted")
        button.click(partial(highlight, model, tokenizer), code, marked, api_name="highlight", **use)
        # Each page has its own signal; with Gradio's `cancels`, a late update could replace the word "Stopped".
        signal, at_once = gr.State(), {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        run, pressed = partial(complete, model, tokenizer), start.click(_unset, signal, signal, **at_once)
        pressed.then(run, [prompt, *controls, signal], [status, *texts], api_name="complete", **use)
        stop.click(lambda event: event and event.set(), signal, None, **at_once)
    return page


def _text_area(label: str, text: str) -> gr.Textbox:
    return gr.Textbox(text, label=label, elem_id=label.lower(), elem_classes="code", lines=9, max_lines=20)


def _controls(longest: int) -> list[gr.components.Component]:
    return [
        gr.Slider(1, MOST_CANDIDATES, 2, step=1, label="Candidates"),
        gr.Slider(1, longest, min(48, longest), step=1, label="New tokens"),
        gr.Slider(0, 2, 0.4, step=0.05, label="Temperature", info="0: always the most likely token"),
        gr.Slider(0.05, 1, 0.95, step=0.05, label="Top-p", info="the most likely tokens with this sum"),
        gr.Slider(0, 200, 0, step=1, label="Top-k", info="this many most likely tokens; 0: all"),
        gr.Number(1, label="Seed", precision=0, minimum=0, maximum=2**32, elem_id="seed"),
        gr.Checkbox(True, label="Only up to the next block", info="class, def, comment, …"),
    ]


def _unset(signal: threading.Event | None) -> threading.Event:
    """Return the signal for the next run: the last one, unless Stop was pressed since, for that run or for none."""
    return threading.Event() if signal is None or signal.is_set() else signal


def complete(
    model, tokenizer, prompt, candidates, new_tokens, temperature, top_p, top_k, seed, one_block, stopped=None
) -> Iterator[list[Any]]:
    """Yield a status line and the candidates, a few times per second, until the work is done or stopped."""
    options = {"candidates": candidates, "new_tokens": new_tokens, "temperature": temperature, "top_p": top_p}
    options |= {"top_k": top_k or None, "seed": seed or 0, "one_block": one_block}
    shown, word = 0.0, "Done"
    for step, texts in enumerate(stream_completions(model, tokenizer, prompt, **options), 1):
        boxes = [gr.Textbox(text, visible=True) for text in texts]
        boxes += [gr.Textbox(visible=False)] * (MOST_CANDIDATES - len(texts))
        if stopped and stopped.is_set():
            word = "Stopped"
            break
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            yield [f"Writing: {step} of up to {new_tokens} tokens …", *boxes]
    yield [f"{word}: {step} of up to {new_tokens} tokens.", *boxes]


def highlight(model: Any, tokenizer: Any, code: str) -> str:
    """Return the code as HTML with its surprising tokens marked."""
    return surprise_picture(token_surprise(model, tokenizer, code)).html


def launch(page: gr.Blocks, host: str, port: int | None, open_browser: bool) -> None:
    """Serve the page: no sharing (Colab's default), no uploads (1 byte), no links to other sites."""
    options = {"share": False, "max_file_size": 1, "footer_links": [], "css": _CSS, "quiet": True}
    # Gradio asks its own server whether it runs, which must not go through a proxy.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    # What is wrong with a request, such as an empty prompt, is shown on the page.
    options |= {"show_error": True, "inbrowser": open_browser, "prevent_thread_lock": True}
    page.launch(server_name=host, server_port=port, **options)


def serve(folder: Path, host: str, port: int | None, open_browser: bool, name: str) -> None:
    """Load model and tokenizer from a folder and serve their page until Ctrl-C."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"Warning: everyone who reaches this machine over the network can use the demo ({host}).", flush=True)
    if port and port > 65535:
        raise ValueError(f"--port {port} is not allowed; give 1 to 65535, or leave it out.")
    # Gradio itself would try a wrong host for minutes.
    socket.create_server((host, port or 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    page = build_demo(artifacts.load_model(folder), load_tokenizer(folder), name)
    launch(page, host, port, open_browser)
    print(f"The demo runs at {page.local_url} (Ctrl-C ends it).", flush=True)
    page.block_thread()
