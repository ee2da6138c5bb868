"""The gateway: one nginx before the nodes, its configuration, its logs, and its supervisor.

Start at `supervisor` (`sonode gateway`), which keeps one `nginx` in line with what `configuration`
renders. The largest body is `max_request_size` of config.properties. May import `archives.nodes`
and what that may import.
"""
