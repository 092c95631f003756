"""How the answer of a model nobody trusts is made fit to be shown to someone who must not learn
whose it is. Pure functions of text.

    characters.py  what has no glyph or steers others, gone
    shape.py       white space that tells nothing; length and Markdown elements
    identities.py  the words by which a model names itself or its maker
    masking.py     those words hidden
    parser.py      Markdown as tokens, formulas left alone
    markup.py      tokens as HTML that can do nothing
    garble.py      an answer damaged so that no reader prefers it

The order is `normalise`, `mask`, `to_html`; `garble`, where wanted, before `mask`. Knows nothing of
pages, databases or models.
"""
