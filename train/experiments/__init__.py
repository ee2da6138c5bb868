"""Many trainings of one recipe: by folds of patients, by variants of the model, by seeds.

Start at `folds` or `ablation`. May import `evidence` and what is below it.
"""
