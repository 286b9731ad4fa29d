"""The Celery app of the scenarios: its tasks, and every shared name of its own, so that workers do not meet."""

import os
import time

from celery import Celery


def make_app(url, name):
    app = Celery(name, broker=url, backend="rpc://", set_as_current=False)
    app.conf.update(
        task_default_queue=name,
        control_exchange=name,
        event_exchange=f"{name}-events",
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=False,
    )

    @app.task(name="succeed_on_third_try", shared=False, bind=True)
    def succeed_on_third_try(task, word):
        if task.request.retries < 2:
            raise task.retry(countdown=0.1)
        return [word, task.request.retries]

    @app.task(name="now", shared=False)
    def now():
        return time.time()

    return app


if "SCENARIO_NAME" in os.environ:  # in the worker's process, where Celery looks for the app
    app = make_app(os.environ["SCENARIO_URL"], os.environ["SCENARIO_NAME"])
