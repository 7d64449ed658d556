"""The didactic experiment of the paper: find a planted sub-sequence."""
