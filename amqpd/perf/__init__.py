"""The program `amqpperf`: loads any AMQP 0-9-1 broker and measures throughput, latency and churn.

`commands` has the options, `coordinator` declares, starts the worker processes, prints the live line and cleans up;
`worker` is the loop of one process with its publishers, consumers or churners. `client` speaks the protocol of the
set-up, `batches` makes and reads the bytes of the hot path. Nothing here imports the broker.

Always true: the password is in no output and on no command line of a worker.
"""
