"""The nodes behind a gateway, as seen from there: nodes.yaml, requests to each, a watch on each.

Start at `nodes`. May import `archives.state`, `archives.torchserve` and `archives.packing`.
"""
