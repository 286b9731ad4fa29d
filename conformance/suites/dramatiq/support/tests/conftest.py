"""The fixtures that test_rabbitmq.py expects: a global broker with ten priorities, emptied afterwards, and its worker."""

import dramatiq
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from .common import RABBITMQ_CREDENTIALS


@pytest.fixture
def rabbitmq_broker():
    broker = RabbitmqBroker(host="127.0.0.1", max_priority=10, credentials=RABBITMQ_CREDENTIALS)
    dramatiq.set_broker(broker)
    yield broker
    broker.flush_all()
    broker.close()


@pytest.fixture
def rabbitmq_worker(rabbitmq_broker):
    worker = dramatiq.Worker(rabbitmq_broker, worker_threads=4)
    worker.start()
    yield worker
    worker.stop()
