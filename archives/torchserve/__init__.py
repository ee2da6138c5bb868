"""One TorchServe node on this machine: Java, its configuration, tokens, cores, and its end.

Start at `node`. May import `archives.packing` and `archives.state`.
"""
