"""Byte-pair vocabularies: learning one from text, and measuring how well it compresses.

Knows nothing of models, training loops or the command line.
"""
