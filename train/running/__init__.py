"""One training from its settings to OUT: Lightning's command line, what it prints, and resuming.

Start at `command`, then `cli`. May import `train.fitting` and what is below it.
"""
