"""Running generated programs, confined so that they can neither forge a pass nor do harm."""

from course_utils.sandbox.levels import promise_table
from course_utils.sandbox.running import Result, run_problem, run_problems, strongest_level
