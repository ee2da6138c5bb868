"""Evidence for a reviewer: cohorts of other hospitals, subgroups, reporting checklists.

Start at `report` (`sonode external`). May import `evidence` and what is below it.
"""
