"""Requests to servers on this machine, each on a connection of its own, whatever proxies there are.

`httpx.get` and its like read all certificates of the web each time: 30 ms of CPU time.
"""

import httpx

LOOPBACK = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
