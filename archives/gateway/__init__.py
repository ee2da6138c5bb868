"""The gateway: one nginx before the nodes, its configuration, its logs, and its supervisor.

Start at `supervisor` (`sonode gateway`); `configuration`, `nginx.conf.j2` and `gateway.js` say what
a client may send. May import `archives.nodes` and what that may import.
"""
