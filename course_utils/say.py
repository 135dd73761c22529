"""What notebooks print in sentences: literal templates, which can be translated before values are filled in."""

from typing import Any

from course_utils import language


def say(template: str, /, **values: Any) -> None:
    """Print a sentence in the learner's language: `say("{share:.1%} of the tokens", share=0.25)`."""
    print(language.filled(template, values))
