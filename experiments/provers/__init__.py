"""Which prover? What each of a family promises, beside what it brings."""
