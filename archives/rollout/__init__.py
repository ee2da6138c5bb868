"""From one version to the next under live traffic, step by step, and back.

Start at `steps`; `commands` is `sonode rollout ...`. May import all of `archives` but `comparing`
and `serving`.
"""
