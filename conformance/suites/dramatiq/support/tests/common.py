"""What test_rabbitmq.py imports from the `common` module that the package leaves out."""

import pika

RABBITMQ_USERNAME = RABBITMQ_PASSWORD = "guest"
RABBITMQ_CREDENTIALS = pika.PlainCredentials(RABBITMQ_USERNAME, RABBITMQ_PASSWORD)


def skip_unless_rabbit_mq(test):
    """Here the broker always runs, so nothing is skipped."""
    return test
