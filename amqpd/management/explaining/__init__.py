"""Explanations for operators: where a message would go, and why a queue stands still.

`route.py` follows a message through exchanges to queues and along their dead-letter exchanges; `route_steps.py` has the
steps as records. `survey.py` finds the queues that stand still, and `standstill.py` finds what such a queue waits for.
Nothing here changes the broker.
"""
