"""The archive (`.mar`): packed from a checkpoint, always the same bytes; inspected; opened.

Start at `pack` (writing), `members` (checking and reading its bytes) and `loader` (running its
code). Imports nothing else of `archives`.
"""
