"""What the gateway's logs say for and against a version: the guards of a rollout, and their tests.

Start at `guards`, which roll a version back, and `rollout_policy`, which has their limits. The
pages are in `reports`. May import `archives.gateway.logs` and `archives.state`.
"""
