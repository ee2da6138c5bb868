"""The results: their schema, which run owns a partition, and the results of previous runs.

Start at `schema`. May import `batch.manifest` and `batch.storage`.
"""
