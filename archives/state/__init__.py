"""The state folder, which the gateway and the rollout commands share.

Start at `journal`: what the gateway and every node should do, line by line. `control` is what an
operator asks of a running rollout, `tokens_and_keys` has clients' tokens and the keys, `files` is
how all of it is written. May import `archives.packing`.
"""
