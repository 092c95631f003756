"""What a study asks, frozen before its first vote: a folder that all else reads.

    spec.py     the folder's files: study.json, items.jsonl, key
    making.py   from run directories to such a folder
    pairs.py    which two answers are compared, and which controls lie between them
    sides.py    who sees which answer where, and when, drawn from the study's key

Knows nothing of votes, databases or pages.
"""
