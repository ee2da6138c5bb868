"""What lies below OUT: its schema, which run owns a place, and the results of earlier runs.

Start at `schema`. May import `batch.manifest` and `batch.storage`.
"""
