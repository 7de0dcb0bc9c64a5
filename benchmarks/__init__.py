"""What medprism costs beside its peers: `python -m benchmarks` in the root of the repository."""
