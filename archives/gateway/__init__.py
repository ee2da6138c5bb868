"""The gateway: one nginx before the nodes, its configuration, its logs, and its supervisor.

Start at `supervisor` (`sonode gateway`); `configuration`, `nginx.conf.j2` and `gateway.js` say what
a client may send. The largest body is `max_request_size` of config.properties. The lines of
`requests.jsonl` and `attempts.jsonl` are in `nginx_maps.conf.j2`. May import `archives.nodes` and
what that may import.
"""
