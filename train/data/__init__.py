"""From raw documents to packed token shards (paper section 2.1), one idea per file.

The steps and their order are the paper's; it publishes no threshold, no mixture and no model, so
every number in a recipe is this project's or of the source that is named beside it.
"""
