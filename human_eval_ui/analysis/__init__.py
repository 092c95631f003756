"""What the votes of a pairwise study say, and how surely. Pure functions of plain data.

    votes.py      one vote, read from rows with a closed schema
    shares.py     win, tie and lose against a baseline, by category and overall
    strength.py   one scale for all systems: Bradley-Terry with ties, covariates, ranks
    agreement.py  whether annotators agree with each other, and position bias
    judges.py     whether a judge agrees with the annotators
    power.py      what a study of a size can tell, before it begins

The item (an instruction) is the unit throughout: its votes are drawn, flipped and left out
together, because annotators of one item see the same two answers. Knows nothing of pages, databases
or models.
"""
