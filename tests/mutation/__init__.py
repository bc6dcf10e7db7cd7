"""Mutations of the broker's code, each of which some test must notice.

`mutants` finds what can be changed, `patching` puts one change into a process that has imported the code already,
`lines` records which tests reach which line, and `trial` runs those tests in a forked process for each mutant.
`survivors` gives the reasons for mutants that no test need notice. `python -m tests.mutation` prints the table.
"""
