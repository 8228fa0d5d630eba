"""Products with the splitting matrices of all neurons: v -> S v, and dense S."""
