"""One nginx as a program: found, started, adopted, reconfigured, its logs moved aside, ended.

Start at `nginx`. Knows nothing of what its configuration says.
"""
