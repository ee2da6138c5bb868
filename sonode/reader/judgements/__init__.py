"""What readers say of scores: the lines of a record, a study that hides scores first, its rates.

Start at `judging`, which writes what the reader says to the `record`. `study` hides scores before
the first reading; `measure` gives the rates of a study, and alone imports `train`.
"""
