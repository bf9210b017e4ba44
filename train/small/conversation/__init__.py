"""The conversation benchmark: conversations of many families about files of the test split, with patterns beside each.

`files.yaml` and `items.yaml` are the benchmark; `items` reads them, `files` makes what the corpus does not hold,
`scoring` judges an answer, and `measure` asks and reports.
"""
