"""The paper's theory, measured on random trees: a side experiment, of no stage."""
