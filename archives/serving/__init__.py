"""The commands that serve: `sonode serve`, with or without a gateway, and `sonode predict`.

Start at `serve`. May import `archives.gateway` and what that may import.
"""
