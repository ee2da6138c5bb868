"""What runs inside TorchServe and inside the batch job: request -> image -> scores -> heat map.

Start at `service`. It travels in an archive, so it may import `model_def` and nothing else of this
project.
"""
