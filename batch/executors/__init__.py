"""Where shards run: in this process, or on a Ray cluster.

Start at `local`. May import all of `batch` but the commands.
"""
