"""What the second server's ports answer: inference, management, metrics; who may ask.

Start at `app`. `connection` and `bodies` read what clients send, `tokens` checks the caller. May
import all of `archives.asgi` but `server`, `node` and `ray_serve`.
"""
