"""From NNI's own records to a table, a CSV file and plots."""
