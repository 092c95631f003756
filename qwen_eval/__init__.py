"""Train, align and judge Qwen-style models, with the judging at the centre."""

__version__ = "0.1.0"
