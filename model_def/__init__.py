"""The network, its heads, the preprocessing facts and the checkpoint."""
