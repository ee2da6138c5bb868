"""`sonode demo`: every step on a synthetic cohort, through the commands that a user would type.

Start at `steps`. `local_s3` is the S3 server that it starts, which the tests use, too. May import
all folders; nothing imports `sonode.demo` but the command line.
"""
