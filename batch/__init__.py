"""A manifest in object storage -> scored Parquet, through an archive.

Start at `run`; `prepare` checks what it is given, `plan` says what it would do, `layout` names
every path below OUT, `commands` is `sonode score`. Imports `sonode`, and reaches a network through
`archives.packing` alone.
"""
