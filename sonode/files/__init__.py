"""Files that are read and written: whole or not at all, and checked before use.

`atomic` writes; `settings` and `yaml_keys` check YAML, `parquet` Parquet files, `metrics` the files
of an evaluation. Start at `atomic`. May import `sonode.console`.
"""
