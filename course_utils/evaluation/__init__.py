"""Measuring trained models. What notebooks use can be taken from here: `from course_utils import evaluation`."""

from course_utils.evaluation.metrics import share_interval
from course_utils.evaluation.planted_bugs import bug_ranks, chance_in_top, plant_bugs
from course_utils.evaluation.problems import load_problems
from course_utils.evaluation.quality import score_documents
from course_utils.evaluation.surprise import surprise_picture, token_surprise
from course_utils.evaluation.tasks import judge, load_tasks, score_tasks
