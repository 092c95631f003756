"""`python -m qwen_eval` is `qwen-eval`."""

from qwen_eval.cli.main import main

if __name__ == "__main__":
    main()
