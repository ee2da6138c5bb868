"""The results: their schema, which run owns a partition and how many rows its files have
(`run_registry`; the default is `sonode.defaults.SHARD_ROWS`), and the results of previous runs.

Start at `schema`. May import `batch.manifest` and `batch.storage`.
"""
