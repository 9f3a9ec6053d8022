"""Publishes observations to ServiceRadar with confluent-kafka and fastavro.

    python publish.py SERVERS TENANT Observation.avsc [REGISTRY_URL] < observations.jsonl

A line is an observation as JSON; fields that have defaults may be left out. Without a registry, values have Avro's
single-object encoding: C3 01, the fingerprint of the schema, the datum. With one, they have Confluent's framing, by
confluent-kafka's own serializer.
"""

import datetime
import hashlib
import io
import json
import sys

import fastavro
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext


def observation(line):
    """An observation: its time is a datetime, and what is left out fastavro takes from the schema."""
    event = {"id": "", "partition": "default"} | json.loads(line)
    event["event_time"] = datetime.datetime.fromisoformat(event["event_time"].replace("Z", "+00:00"))
    return event


def datum(schema, event):
    """The fields of an event, by the schema alone."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, event)
    return out.getvalue()


def single_object(schema):
    """What encodes an event, and says by which schema."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    # Its bytes, the lowest first.
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    return lambda event: b"\xc3\x01" + fingerprint + datum(schema, event)


def confluent(text, url, topic):
    """The same, by a registry: the schema is registered under the topic's name, if it is not there yet."""
    serializer = AvroSerializer(SchemaRegistryClient({"url": url}), text)
    context = SerializationContext(topic, MessageField.VALUE)
    return lambda event: serializer(event, context)


def main(servers, tenant, schema_file, registry=None):
    topic = f"{tenant}.observations"
    with open(schema_file, encoding="utf-8") as file:
        text = file.read()
    schema = fastavro.parse_schema(json.loads(text))
    encode = confluent(text, registry, topic) if registry else single_object(schema)
    # Small batches cost whoever reads them several times their speed.
    producer = Producer({
        "bootstrap.servers": servers, "enable.idempotence": True, "compression.type": "zstd",
        "linger.ms": 20, "batch.size": 262144,
    })  # fmt: skip
    refused = []

    def delivered(error, message):
        if error is not None:
            refused.append(f"{message.key().decode()}: {error}")

    for line in sys.stdin:
        event = observation(line)
        source = event["source"]
        # What is said of a record stays in order: the record's key is the event's.
        key = f"{event['partition']}/{source['kind']}/{source['instance']}/{event['native_key']}"
        value = encode(event)
        headers = {
            # The same event, sent again, has the same id.
            "ce_id": event["id"] or hashlib.sha256(datum(schema, event)).hexdigest(),
            "ce_type": "serviceradar.v1.Observation",
            "ce_source": f"{source['kind']}/{source['instance']}",
            "ce_time": event["event_time"].isoformat(),
            "ce_specversion": "1.0",
            "content-type": "application/avro",
        }
        while True:
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    for line in refused:
        print(f"refused: {line}", file=sys.stderr)
    if refused or left:
        sys.exit(f"error: {len(refused)} refused, {left} not delivered within a minute: publish them again")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
