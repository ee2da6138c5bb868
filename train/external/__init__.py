"""Evidence for a reviewer: cohorts of other hospitals, reporting checklists.

Start at `report` (`sonode external`). May import `evidence` and what is below it.
"""
