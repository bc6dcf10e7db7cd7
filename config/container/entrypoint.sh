#!/bin/sh
# Start amqpd with the files that RabbitMQ's image reads, and refuse the variables that it refuses.
set -eu

if [ "${1:-amqpd}" != amqpd ] && [ "${1#-}" = "$1" ]; then
    exec "$@"               # another program, such as amqpctl or sh
fi
[ "${1:-}" = amqpd ] && shift

deprecated=
for name in \
    RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE RABBITMQ_VM_MEMORY_HIGH_WATERMARK \
    RABBITMQ_SSL_CACERTFILE RABBITMQ_SSL_CERTFILE RABBITMQ_SSL_DEPTH RABBITMQ_SSL_FAIL_IF_NO_PEER_CERT \
    RABBITMQ_SSL_KEYFILE RABBITMQ_SSL_VERIFY RABBITMQ_MANAGEMENT_SSL_CACERTFILE RABBITMQ_MANAGEMENT_SSL_CERTFILE \
    RABBITMQ_MANAGEMENT_SSL_DEPTH RABBITMQ_MANAGEMENT_SSL_FAIL_IF_NO_PEER_CERT RABBITMQ_MANAGEMENT_SSL_KEYFILE \
    RABBITMQ_MANAGEMENT_SSL_VERIFY
do
    if printenv "$name" | grep -q .; then
        echo "error: $name is set but deprecated" >&2
        deprecated=1
    fi
done
if [ -n "$deprecated" ]; then
    echo "error: deprecated environment variables detected" >&2
    echo "Put the values into a configuration file, such as /etc/rabbitmq/conf.d/10-mine.conf" >&2
    exit 1
fi

case "${1:-}" in
    ''|-*|serve) [ "${1:-}" = serve ] && shift ;;
    *) exec amqpd "$@" ;;   # another command, such as store or check-config
esac

# Later files override earlier ones.
file=${RABBITMQ_CONFIG_FILE:-/etc/rabbitmq/rabbitmq.conf}
if [ -n "${RABBITMQ_CONFIG_FILE:-}" ] || [ -e "$file" ]; then
    set -- --rabbitmq-conf "$file" "$@"
fi
set -- --rabbitmq-conf "${IMAGE_DEFAULTS:-/usr/local/share/amqpd/defaults.conf}" "$@"
for one in ${RABBITMQ_CONFIG_FILES:-/etc/rabbitmq/conf.d/*.conf}; do
    if [ -e "$one" ] || [ -n "${RABBITMQ_CONFIG_FILES:-}" ]; then
        set -- "$@" --rabbitmq-conf "$one"
    fi
done
exec amqpd serve "$@"
