"""The figures of the paper's page: flow of patients, heat maps, profile of their activation.

Each file but `pictures`, which draws panels, is one section. Start at `flow`. May import
`train.paper.sections`, and what `train.paper` may import.
"""
