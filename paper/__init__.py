"""The paper's experiments, one command each; docs/results.md has what came out."""
