"""A shard's rows: fetched, decoded, scored through the archive, and written as one part.

Start at `shards`, which scores one shard, then `pipeline`; `batch.manifest` cuts the shards. May
import `batch.results`, `batch.manifest`, `batch.storage`.
"""
