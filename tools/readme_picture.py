"""Draw the README's picture: `python -m tools.readme_picture`. The reference model completes code, token by token."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils import artifacts, plots

PROMPT = "import numpy as np\nimport matplotlib.pyplot as plt\n\n# plot a sine curve\nx = np."
NEW_TOKENS, SHOWN, CHOICES = 21, 12, 4
PICTURE = Path(__file__).parents[1] / "images" / "completion.png"


def choices() -> list[list[tuple[str, float]]]:
    """Return, for each new token, the most likely ones with their probabilities; the first is the one that is taken."""
    location, found = artifacts.reference_model(), []
    model, tokenizer = AutoModelForCausalLM.from_pretrained(location), AutoTokenizer.from_pretrained(location)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            best = model(ids).logits[0, -1].softmax(-1).topk(CHOICES)
            found.append([(tokenizer.decode([i]), p) for p, i in zip(*map(torch.Tensor.tolist, best), strict=True)])
            ids = torch.cat([ids, best.indices[None, :1]], 1)
    return found


def main() -> None:
    """Write the picture, and print the completion that stands in the README."""
    found = choices()
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.55, SHOWN - 0.4), ylim=(CHOICES - 0.4, -1.1))
    axes.set_axis_off()
    for column, tokens in enumerate(found[:SHOWN]):
        for row, (text, probability) in enumerate(tokens):
            shown = text.replace(" ", "·").replace("\n", "↵")
            axes.barh(row, 0.92 * probability, left=column - 0.46, height=0.88, color=plots.TINTS[1 if row == 0 else 7])
            axes.text(column - 0.43, row - 0.12, shown, va="center", fontsize=9.5, family="monospace")
            axes.text(column - 0.43, row + 0.3, f"{probability:.0%}", va="center", fontsize=7, color="0.4")
    axes.text(-0.46, -0.75, f"{PROMPT.splitlines()[-1]} …", fontsize=11, family="monospace")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=130)
    print(PROMPT + "".join(tokens[0][0] for tokens in found))


if __name__ == "__main__":
    main()
