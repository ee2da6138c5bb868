"""Objects by URI, on disk and in S3, and what may go wrong with them.

Start at `objects`. Imports nothing else of `batch`.
"""
