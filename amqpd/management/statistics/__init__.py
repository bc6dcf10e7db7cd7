"""Statistics as RabbitMQ's management API shows them: see `statistics.py` for how to call it.

    statistics.py   `Statistics`: values, rates and samples of an object, as dicts for JSON
    forms.py        the forms of values, rates and samples
    ranges.py       `Ranges`: which samples a request asks for
    sampling.py     the samplings, every 5 s in slices, and the histories by object
    history.py      the rings of one object's history
    node.py         the numbers of the process that have a history
"""

from amqpd.management.statistics.ranges import NO_RANGES, InvalidRange, Range, Ranges
from amqpd.management.statistics.statistics import Statistics

__all__ = ["NO_RANGES", "InvalidRange", "Range", "Ranges", "Statistics"]
