"""The forward pass: one network, several inference engines, all proved on golden examples.

Start at `choose`. May import `model_def` and `handlers.settings`.
"""
