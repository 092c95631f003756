"""The decoder, its tokenizers, weights and engine. Knows nothing of tasks or files of runs."""
