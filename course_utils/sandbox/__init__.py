"""Running generated programs, confined so that they can neither forge a pass nor do harm."""

from course_utils.sandbox.running import Result as Result
from course_utils.sandbox.running import run_problem as run_problem
from course_utils.sandbox.running import run_problems as run_problems
from course_utils.sandbox.running import strongest_level as strongest_level
