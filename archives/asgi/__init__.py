"""The second server: Starlette and uvicorn before worker processes; no Java, no TorchServe.

Start at `node` for the process that is started, at `server` for what runs in it. One process
answers HTTP; it imports neither torch nor httpx, so it starts fast and stays small. What its ports
answer is in `api`, what scores in `workers`. The ports are options of `sonode serve`
(`archives/commands.py`), the same for both servers. May import `archives.torchserve` and what that
may import.
"""
