"""What a run says of itself: run.json, its page, drift, and who is notified.

Start at `summary`. May import `batch.scoring`, `batch.results` and `batch.storage`.
"""
