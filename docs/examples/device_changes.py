"""Reads ServiceRadar's device-changes from the start to the end, and prints the devices there are, a JSON line each.

    python device_changes.py SERVERS TENANT DeviceChange.avsc [REGISTRY_URL]

The contract: the key is the uid; the value a device, whole, or null where it is no more; the header `epoch` only rises,
but changes may come twice and late. So the greatest epoch of a key counts, that of what is no more included. The header
`redirect` of a null names the uid that the device has now.
"""

import io
import json
import sys

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

TIMEOUT_S = 30


class Schemas:
    """Schemas of writers, by either framing; each is asked for once."""

    def __init__(self, own, registry):
        self.own, self.by_id = own, {}
        canonical = fastavro.schema.to_parsing_canonical_form(own)
        self.fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
        self.registry = registry and SchemaRegistryClient({"url": registry})

    def decode(self, value):
        if value[:1] == b"\0" and self.registry:
            writer, datum = self.of_id(int.from_bytes(value[1:5], "big")), value[5:]
        elif value[:2] == b"\xc3\x01" and value[2:10] == self.fingerprint:
            writer, datum = self.own, value[10:]
        else:
            raise ValueError(f"a value begins with {value[:10].hex()}: its schema is not known here")
        # By the writer's schema, into what this program knows.
        return fastavro.schemaless_reader(io.BytesIO(datum), writer, self.own)

    def of_id(self, number):
        if number not in self.by_id:
            text = self.registry.get_schema(number).schema_str
            self.by_id[number] = fastavro.parse_schema(json.loads(text))
        return self.by_id[number]


def messages(servers, topic):
    """All there is now, of all log partitions."""
    consumer = Consumer({
        "bootstrap.servers": servers, "group.id": "example", "enable.auto.commit": False,
        # What a writer published that was fenced meanwhile is not read.
        "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "error",
    })  # fmt: skip
    found = consumer.list_topics(topic, TIMEOUT_S).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in found.partitions])
    reading = set(found.partitions)
    while reading:
        message = consumer.poll(TIMEOUT_S)
        if message is None:
            sys.exit(f"error: nothing came for {TIMEOUT_S} s")
        if message.error() is None:
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            reading.discard(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()


def main(servers, tenant, schema_file, registry=None):
    with open(schema_file, encoding="utf-8") as file:
        schemas = Schemas(fastavro.parse_schema(json.load(file)), registry)
    devices, epochs = {}, {}
    for message in messages(servers, f"{tenant}.device-changes"):
        uid, headers = message.key().decode(), dict(message.headers())
        epoch = int(headers["epoch"])
        if epoch < epochs.get(uid, 0):
            continue
        epochs[uid] = epoch
        devices[uid] = message.value() and schemas.decode(message.value())
    for uid in sorted(uid for uid, device in devices.items() if device):
        print(json.dumps(devices[uid], default=str))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
