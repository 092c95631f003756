"""lm-evaluation-harness in both directions: its tasks on our backends, our engine as its model."""
