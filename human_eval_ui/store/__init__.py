"""The votes of a study, and who may give them: a database that loses nothing it has confirmed.

    tables.py     what is kept
    store.py      opening it, and the one way to write
    assigning.py  which pair an annotator compares next
    voting.py     a vote, a skip, and taking the last one back
    access.py     invitations, sessions, roles
    owning.py     progress, pausing, closing, unblinding, adjudication
    reading.py    votes as the analysis wants them

SQLite beside the study, or PostgreSQL by its address. Answers and instructions are not in it: they
are read from the study folder, whose hash it holds.
"""
