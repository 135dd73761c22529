"""Make the committed results that notebooks show beside the learner's own: `python -m tools.reference_runs COMMAND`.

Each command writes one JSON file into `course_utils/training/references/`, run by run: after an interruption, the same
command goes on. The data stay the same; a seed changes weights, order and dropout.
"""
