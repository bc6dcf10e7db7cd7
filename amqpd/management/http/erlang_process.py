"""What RabbitMQ tells of the Erlang process of a queue, a connection or a channel.

There are no such processes here, but some programs fail without the keys: so they are there, with zeros. `reductions`
come with the statistics.
"""

from __future__ import annotations

GARBAGE = {"fullsweep_after": 0, "max_heap_size": 0, "min_bin_vheap_size": 0, "min_heap_size": 0, "minor_gcs": 0}
