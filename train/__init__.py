"""From a cohort to a checkpoint, and the evidence for it."""
