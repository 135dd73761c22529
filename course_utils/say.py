"""What notebooks print in sentences: literal templates, which can be translated before values are filled in."""

from typing import Any


def say(template: str, /, **values: Any) -> None:
    """Print a sentence: `say("{share:.1%} of the tokens", share=0.25)`."""
    print(template.format(**values))
