"""The gateway's configuration of nginx: what a client may send, and which node answers.

Start at `render`; `nginx.conf.j2` and `gateway.js` say what a client may send. The lines of
`requests.jsonl` and `attempts.jsonl` are in `nginx_maps.conf.j2`. `settings` are the user's.
"""
