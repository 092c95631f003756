"""Self-instruct for the use of tools (paper, section 3.4): a model writes new ReAct samples after
seeds, rules and Rouge-L drop most of them, and what is left is trained on."""
