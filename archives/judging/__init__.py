"""What the gateway's logs say for and against a version: guards, their tests, and reports.

Start at `guards` and `rollout_policy`. May import `archives.gateway.logs` and `archives.state`.
"""
