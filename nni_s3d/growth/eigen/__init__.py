"""Both extreme eigenpairs of batched symmetric matrices, from products alone."""
