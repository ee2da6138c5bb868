"""What the second server's ports answer: inference, management, metrics; who may ask.

Start at `app`. `connection` and `bodies` read what clients send, `tokens` checks the caller. May
import `models`, `metrics` and `open_inference`.
"""
