"""The archive (`.mar`): packed from a checkpoint, always the same bytes; inspected; opened.

Start at `pack` (writing) and `loader` (reading). Imports nothing else of `archives`.
"""
