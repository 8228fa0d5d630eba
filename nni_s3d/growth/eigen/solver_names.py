"""The names of the eigensolvers, for settings that are read without PyTorch."""

SOLVERS = ("auto", "exact", "lanczos", "rayleigh")
