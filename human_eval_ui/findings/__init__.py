"""From a study's votes to what is told of them. Knows nothing of pages and databases.

findings.py  every estimate of the analysis in one tree of plain data
words.py     names made harmless for a terminal and for XML
text.py      the findings as sentences and tables for a terminal
figure.py    the shape of the paper's Figure 4 as an SVG, the paper's own bars beside
runs.py      votes as run directories, which `report`, `compare`, `gate` and `history` read
export.py    votes as JSON lines, CSV and parquet
"""
