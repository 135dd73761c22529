"""The tool that keeps translations in step with the English text; README.md beside it is for instructors."""
