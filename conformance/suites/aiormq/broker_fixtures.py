"""The fixtures that aiormq's tests expect of a container: here, the broker of this run."""

from types import SimpleNamespace

import pytest
from yarl import URL


@pytest.fixture
def rabbitmq_container():
    return SimpleNamespace(ports={"5672/tcp": 5672, "5671/tcp": 5671})


@pytest.fixture
def amqp_direct_url():
    return URL("amqp://guest:guest@127.0.0.1:5672/")
