"""Mutate the broker's code, and check that some test fails for each mutant.

`mutants` finds what can be changed, `patching` puts one change into a process that has imported the code already,
`lines` records which tests reach which line, and `trial` runs those tests in a forked process for each mutant.
`survivors` gives the reasons for mutants that no test has to detect. `python -m tests.mutation` prints the table.
"""
