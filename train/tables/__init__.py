"""A source's table, CSV or Parquet: its rows with the place of each, and its texts as values.

Start at `records`. May import nothing of `train`.
"""
