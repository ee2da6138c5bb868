"""The paper's baseline: radiomics features and a random forest per head.

Start at `command`. Needs the extra `radiomics`. May import all of `train`.
"""
