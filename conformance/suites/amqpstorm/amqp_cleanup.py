"""amqpstorm's tests delete their queues and exchanges over HTTP; this plugin does it over AMQP."""

import os


def pytest_configure():
    # Imported late: the package reads its addresses from the environment, which must be ours.
    from amqpstorm import Connection
    from amqpstorm import tests
    from amqpstorm.tests.functional import utility

    addresses = {name: getattr(tests, name) for name in ("HOST", "URI", "HTTP_URL", "HTTPS_URL", "SSL_URI", "SSL_HOST")}
    foreign = {name: value for name, value in addresses.items() if "127.0.0.1" not in value}
    assert not foreign, f"these are not on this machine: {foreign}"

    def clean(names, queue=False, exchange=False):
        if not queue and not exchange:
            return
        with Connection(os.environ["AMQP_HOST"], tests.USERNAME, tests.PASSWORD) as connection, connection.channel() as channel:
            for name in names:
                if queue:
                    channel.queue.delete(name)
                if exchange:
                    channel.exchange.delete(name)

    utility.clean = clean
