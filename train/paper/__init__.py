"""The paper reproduced on a cohort: its tables and figures, one page.

Start at `command`, which has everything trained by `repeats`; each other file is a section of the
page, those of `figures` too. May import all of `train` but `commands`.
"""
