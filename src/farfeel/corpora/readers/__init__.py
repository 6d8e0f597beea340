"""One module for each corpus, found by `farfeel.variants.CORPORA`. It reads the names of the corpus's files.

Another package adds a corpus with a `Corpus` object and one line in its pyproject.toml:

    [project.entry-points."farfeel.corpora"]
    savee = "my_package.savee:SAVEE"
"""
