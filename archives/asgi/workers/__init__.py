"""What scores: a version with its queue, and its workers, each a process with one archive.

Start at `versions`. `worker` runs in the process, `worker_process` is its side of the server;
`frames` is what the two send each other.
"""
