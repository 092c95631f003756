"""What people see in the browser. The only part that imports Streamlit; keeps nothing: whatever
must last is in the store. (Not called pages: Streamlit would serve each file of such a folder.)

    words.py       every sentence in Chinese and English
    look.py        style, and the answers as HTML
    sight.py       how long the page was out of sight
    compare.py     the annotator's page
    acting.py      what an owner's buttons do, while they may
    progress.py    the owner's: how far, how agreed, pausing, closing, unblinding
    disputes.py    the owner's: pairs on which votes contradict each other
    results.py     the owner's, after unblinding: findings and exports
"""
