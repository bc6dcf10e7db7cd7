"""What outlives the process, in one SQLite file: definitions, persistent messages, and the batches they come in."""
