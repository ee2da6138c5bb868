"""One TorchServe node on this machine: Java, configuration, tokens, workers and batches, its end.

Start at `node`; `worker_plan` is for both servers. May import `archives.packing` and
`archives.state`.
"""
