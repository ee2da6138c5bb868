"""A manifest in object storage -> scored Parquet, through an archive."""
