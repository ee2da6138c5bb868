"""Images of a cohort that are nearly the same: which are, and what that means.

Start at `near_duplicates`; `similar_images` writes the page that shows them.
"""
