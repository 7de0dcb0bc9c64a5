"""Lightning loops, run folders, checkpoints and resume."""
