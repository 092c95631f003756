"""The blinded pairwise comparison of answers by people."""
