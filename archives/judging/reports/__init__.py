"""A rollout on a page: old and new version beside each other, and why guards decided as they did.

Start at `ab_report` (`sonode rollout report`) or `explain` (`sonode rollout explain`).
"""
