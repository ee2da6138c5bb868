"""The forward pass: one network, several inference engines, all checked on golden examples.

Start at `choose`. May import `model_def` and `handlers.settings`.
"""
