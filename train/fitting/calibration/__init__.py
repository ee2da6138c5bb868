"""What a network is given after training: temperatures, thresholds, label sets, outlier limit.

Start at `calibrate`, which takes the `temperature` of each head and its bounds (`conformal`).
"""
