"""Comparisons for a reward model (paper, section 3.2.1): tagged prompts drawn for diversity and
complexity, answers from several models and samplers, scores, and pairs."""
