"""A shard's rows: fetched, decoded, scored through the archive, and written as one part.

Start at `shards`, then `pipeline`. May import `batch.results`, `batch.manifest`, `batch.storage`.
"""
