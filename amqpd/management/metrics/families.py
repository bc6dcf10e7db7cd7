"""The families of metrics that RabbitMQ has and amqpd knows, with RabbitMQ's names, types and texts, and amqpd's own.

`GROUPS` has those that `/metrics/detailed` gives for each object, by RabbitMQ's name of the group. Their names have no
prefix here: it is "rabbitmq_" or "rabbitmq_detailed_". What RabbitMQ has and amqpd does not know is left out, not 0.

RabbitMQ docs/prometheus; recorded from RabbitMQ 3.10.8.
"""

from __future__ import annotations

from typing import NamedTuple

COUNTER, GAUGE, HISTOGRAM, UNTYPED = "counter", "gauge", "histogram", "untyped"


class Family(NamedTuple):
    """A family of series: its name, its type, and what it means."""

    name: str
    kind: str
    text: str


GROUPS: dict[str, tuple[Family, ...]] = {
    "connection_churn_metrics": (
        Family("connections_opened_total", COUNTER, "Total number of connections opened"),
        Family("connections_closed_total", COUNTER, "Total number of connections closed or terminated"),
        Family("channels_opened_total", COUNTER, "Total number of channels opened"),
        Family("channels_closed_total", COUNTER, "Total number of channels closed"),
        Family("queues_declared_total", COUNTER, "Total number of queues declared"),
        Family("queues_created_total", COUNTER, "Total number of queues created"),
        Family("queues_deleted_total", COUNTER, "Total number of queues deleted"),
    ),
    "node_coarse_metrics": (
        Family("process_open_fds", GAUGE, "Open file descriptors"),
        Family("process_open_tcp_sockets", GAUGE, "Open TCP sockets"),
        Family("process_resident_memory_bytes", GAUGE, "Memory used in bytes"),
        Family("disk_space_available_bytes", GAUGE, "Disk space available in bytes"),
        Family("erlang_gc_runs_total", COUNTER, "Total number of Erlang garbage collector runs"),
        Family("erlang_scheduler_context_switches_total", COUNTER, "Total number of Erlang scheduler context switches"),
    ),
    "node_metrics": (
        Family("process_max_fds", GAUGE, "Open file descriptors limit"),
        Family("process_max_tcp_sockets", GAUGE, "Open TCP sockets limit"),
        Family("resident_memory_limit_bytes", GAUGE, "Memory high watermark in bytes"),
        Family("disk_space_available_limit_bytes", GAUGE, "Free disk space low watermark in bytes"),
        Family("erlang_uptime_seconds", GAUGE, "Node uptime"),
    ),
    "node_persister_metrics": (
        Family("io_read_ops_total", COUNTER, "Total number of I/O read operations"),
        Family("io_read_bytes_total", COUNTER, "Total number of I/O bytes read"),
        Family("io_write_ops_total", COUNTER, "Total number of I/O write operations"),
        Family("io_write_bytes_total", COUNTER, "Total number of I/O bytes written"),
        Family("io_sync_ops_total", COUNTER, "Total number of I/O sync operations"),
        Family("schema_db_disk_tx_total", COUNTER, "Total number of Schema DB disk transactions"),
        Family("msg_store_read_total", COUNTER, "Total number of Message Store read operations"),
        Family("msg_store_write_total", COUNTER, "Total number of Message Store write operations"),
        Family("io_write_time_seconds_total", COUNTER, "Total I/O write time"),
        Family("io_sync_time_seconds_total", COUNTER, "Total I/O sync time"),
    ),
    "ra_metrics": (
        Family("raft_term_total", COUNTER, "Current Raft term number"),
        Family("raft_log_snapshot_index", GAUGE, "Raft log snapshot index"),
        Family("raft_log_last_applied_index", GAUGE, "Raft log last applied index"),
        Family("raft_log_commit_index", GAUGE, "Raft log commit index"),
        Family("raft_log_last_written_index", GAUGE, "Raft log last written index"),
        Family("raft_entry_commit_latency_seconds", GAUGE, "Time taken for a log entry to be committed"),
    ),
    "auth_attempt_metrics": (
        Family("auth_attempts_total", COUNTER, "Total number of authorization attempts"),
        Family("auth_attempts_succeeded_total", COUNTER, "Total number of successful authentication attempts"),
        Family("auth_attempts_failed_total", COUNTER, "Total number of failed authentication attempts"),
    ),
    "queue_coarse_metrics": (
        Family("queue_messages_ready", GAUGE, "Messages ready to be delivered to consumers"),
        Family("queue_messages_unacked", GAUGE, "Messages delivered to consumers but not yet acknowledged"),
        Family("queue_messages", GAUGE, "Sum of ready and unacknowledged messages - total queue depth"),
    ),
    "queue_metrics": (
        Family("queue_consumers", GAUGE, "Consumers on a queue"),
        Family("queue_consumer_capacity", GAUGE, "Consumer capacity"),
        Family("queue_consumer_utilisation", GAUGE, "Same as consumer capacity"),
        Family("queue_messages_ram", GAUGE, "Ready and unacknowledged messages stored in memory"),
        Family("queue_messages_ready_ram", GAUGE, "Ready messages stored in memory"),
        Family("queue_messages_persistent", GAUGE, "Persistent messages"),
        Family("queue_messages_bytes", GAUGE, "Size in bytes of ready and unacknowledged messages"),
        Family("queue_messages_ready_bytes", GAUGE, "Size in bytes of ready messages"),
        Family("queue_messages_paged_out", GAUGE, "Messages paged out to disk"),
        Family("queue_messages_paged_out_bytes", GAUGE, "Size in bytes of messages paged out to disk"),
    ),
    "queue_consumer_count": (
        Family("queue_consumers", GAUGE, "Consumers on a queue"),
    ),
    "channel_metrics": (
        Family("channel_consumers", GAUGE, "Consumers on a channel"),
        Family("channel_messages_unacked", GAUGE, "Delivered but not yet acknowledged messages"),
        Family("channel_messages_unconfirmed", GAUGE, "Published but not yet confirmed messages"),
        Family("channel_messages_uncommitted", GAUGE, "Messages received in a transaction but not yet committed"),
        Family("channel_acks_uncommitted", GAUGE, "Message acknowledgements in a transaction not yet committed"),
        Family("consumer_prefetch", GAUGE, "Limit of unacknowledged messages for each consumer"),
        Family("channel_prefetch", GAUGE, "Total limit of unacknowledged messages for all consumers on a channel"),
    ),
    "channel_exchange_metrics": (
        Family(
            "channel_messages_published_total", COUNTER,
            "Total number of messages published into an exchange on a channel"),
        Family(
            "channel_messages_confirmed_total", COUNTER,
            "Total number of messages published into an exchange and confirmed on the channel"),
        Family(
            "channel_messages_unroutable_returned_total", COUNTER,
            "Total number of messages published as mandatory into an exchange and returned "
            "to the publisher as unroutable"),
        Family(
            "channel_messages_unroutable_dropped_total", COUNTER,
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable"),
    ),
    "channel_queue_metrics": (
        Family(
            "channel_get_ack_total", COUNTER,
            "Total number of messages fetched with basic.get in manual acknowledgement mode"),
        Family(
            "channel_get_total", COUNTER,
            "Total number of messages fetched with basic.get in automatic acknowledgement mode"),
        Family(
            "channel_messages_delivered_ack_total", COUNTER,
            "Total number of messages delivered to consumers in manual acknowledgement mode"),
        Family(
            "channel_messages_delivered_total", COUNTER,
            "Total number of messages delivered to consumers in automatic acknowledgement mode"),
        Family("channel_messages_redelivered_total", COUNTER, "Total number of messages redelivered to consumers"),
        Family("channel_messages_acked_total", COUNTER, "Total number of messages acknowledged by consumers"),
        Family("channel_get_empty_total", COUNTER, "Total number of times basic.get operations fetched no message"),
    ),
    "connection_coarse_metrics": (
        Family("connection_incoming_bytes_total", COUNTER, "Total number of bytes received on a connection"),
        Family("connection_outgoing_bytes_total", COUNTER, "Total number of bytes sent on a connection"),
    ),
    "connection_metrics": (
        Family("connection_incoming_packets_total", COUNTER, "Total number of packets received on a connection"),
        Family("connection_outgoing_packets_total", COUNTER, "Total number of packets sent on a connection"),
        Family("connection_pending_packets", GAUGE, "Number of packets waiting to be sent on a connection"),
        Family("connection_channels", GAUGE, "Channels on a connection"),
    ),
    "channel_queue_exchange_metrics": (
        Family("queue_messages_published_total", COUNTER, "Total number of messages published to queues"),
    ),
}
TOTALS = (
    Family("connections", GAUGE, "Connections currently open"),
    Family("channels", GAUGE, "Channels currently open"),
    Family("consumers", GAUGE, "Consumers currently connected"),
    Family("queues", GAUGE, "Queues available"),
)
ALARMS = (
    Family("alarms_file_descriptor_limit", UNTYPED, "is 1 if file descriptor limit alarm is in effect"),
    Family("alarms_free_disk_space_watermark", UNTYPED, "is 1 if free disk space watermark alarm is in effect"),
    Family("alarms_memory_used_watermark", UNTYPED, "is 1 if VM memory watermark alarm is in effect"),
)
BUILD_INFO = Family("build_info", UNTYPED, "RabbitMQ & Erlang/OTP version info")
IDENTITY_INFO = Family("identity_info", UNTYPED, "RabbitMQ node & cluster identity info")
GLOBAL = (
    Family("global_consumers", GAUGE, "Current number of consumers"),
    Family("global_messages_acknowledged_total", COUNTER, "Total number of messages acknowledged by consumers"),
    Family("global_messages_confirmed_total", COUNTER, "Total number of messages confirmed to publishers"),
    Family(
        "global_messages_dead_lettered_confirmed_total", COUNTER,
        "Total number of messages dead-lettered and confirmed by target queues"),
    Family(
        "global_messages_dead_lettered_delivery_limit_total", COUNTER,
        "Total number of messages dead-lettered due to delivery-limit exceeded"),
    Family(
        "global_messages_dead_lettered_expired_total", COUNTER,
        "Total number of messages dead-lettered due to message TTL exceeded"),
    Family(
        "global_messages_dead_lettered_maxlen_total", COUNTER,
        "Total number of messages dead-lettered due to overflow drop-head or reject-publish-dlx"),
    Family(
        "global_messages_dead_lettered_rejected_total", COUNTER,
        "Total number of messages dead-lettered due to basic.reject or basic.nack"),
    Family(
        "global_messages_delivered_consume_auto_ack_total", COUNTER,
        "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment"),
    Family(
        "global_messages_delivered_consume_manual_ack_total", COUNTER,
        "Total number of messages delivered to consumers using basic.consume with manual acknowledgment"),
    Family(
        "global_messages_delivered_get_auto_ack_total", COUNTER,
        "Total number of messages delivered to consumers using basic.get with automatic acknowledgment"),
    Family(
        "global_messages_delivered_get_manual_ack_total", COUNTER,
        "Total number of messages delivered to consumers using basic.get with manual acknowledgment"),
    Family("global_messages_delivered_total", COUNTER, "Total number of messages delivered to consumers"),
    Family("global_messages_get_empty_total", COUNTER, "Total number of times basic.get operations fetched no message"),
    Family(
        "global_messages_received_confirm_total", COUNTER,
        "Total number of messages received from publishers expecting confirmations"),
    Family("global_messages_received_total", COUNTER, "Total number of messages received from publishers"),
    Family("global_messages_redelivered_total", COUNTER, "Total number of messages redelivered to consumers"),
    Family("global_messages_routed_total", COUNTER, "Total number of messages routed to queues or streams"),
    Family(
        "global_messages_unroutable_dropped_total", COUNTER,
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable"),
    Family(
        "global_messages_unroutable_returned_total", COUNTER,
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable"),
    Family("global_publishers", GAUGE, "Current number of publishers"),
)
CLUSTER_GROUPS = {
    "vhost_status": Family("vhost_status", GAUGE, "Whether a given vhost is running"),
    "exchange_names": Family(
        "exchange_name", GAUGE,
        "Enumerates exchanges without any additional info. This value is cluster-wide. "
        "A cheaper alternative to `exchange_bindings`"),
    "exchange_bindings": Family(
        "exchange_bindings", GAUGE, "Number of bindings for an exchange. This value is cluster-wide."),
}
OWN = (
    Family("amqpd_commit_seconds", HISTOGRAM, "Time from taking a batch until it is known to be on disk"),
    Family("amqpd_commit_changes", HISTOGRAM, "Changes in a batch: publishes, settles, definitions"),
    Family("amqpd_commit_bytes", HISTOGRAM, "Bytes in a batch"),
    Family("amqpd_loop_lag_seconds", HISTOGRAM, "How late the event loop calls a timer, measured four times a second"),
    Family("amqpd_body_pieces_written_total", COUNTER, "Pieces of large bodies written before their batch"),
    Family("amqpd_body_bytes_written_total", COUNTER, "Bytes of large bodies written before their batch"),
    Family("amqpd_paged_out_pages_total", COUNTER, "Pages of waiting messages that left memory, which had no room"),
    Family("amqpd_paged_out_messages_total", COUNTER, "Messages on these pages"),
    Family("amqpd_paged_out_bytes_total", COUNTER, "Bytes of bodies on these pages"),
    Family("amqpd_spilled_bytes_total", COUNTER, "Bytes of transient messages written to spill files"),
    Family("amqpd_delivery_watermarks_total", COUNTER, "How often a queue's delivery watermark was raised"),
    Family("amqpd_paged_messages_read_total", COUNTER, "Messages read from the store: paged out, or large"),
    Family("amqpd_paged_bytes_read_total", COUNTER, "Bytes of bodies read from the store"),
    Family("amqpd_set_aside_messages", GAUGE, "Dead letters that cannot be moved, and wait for an operator"),
    Family("amqpd_http_requests_total", COUNTER, "Requests to the management API and for metrics, by status code"),
)
OF_STORE = (
    Family("amqpd_store_bytes", GAUGE, "Size of the store's file"),
    Family("amqpd_store_log_bytes", GAUGE, "Size of the store's write-ahead log"),
    Family("amqpd_store_messages", GAUGE, "Messages in the store"),
    Family("amqpd_store_damaged_messages", GAUGE, "Messages that were set aside because they cannot be read"),
)
