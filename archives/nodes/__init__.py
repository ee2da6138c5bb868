"""The nodes behind a gateway, as seen from there: nodes.yaml, requests to each, a watch on each.

Start at `nodes`; `nodes_file` reads nodes.yaml. May import `archives.state`, `archives.torchserve`
and `archives.packing`.
"""
