"""The manifest: which images to score, one a row, checked whole before the first is fetched.

Start at `read`; `files` cuts the rows into shards. May import `batch.storage`.
"""
