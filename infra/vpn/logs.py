#!/usr/bin/env python3
"""Sends the journal of the VPN's services to its log group, from where the last run ended.

The cursor is saved after CloudWatch has accepted the lines, so lines that failed are sent again.
"""
import json
import os
import subprocess
import sys
import tempfile

UNITS = ["strongswan", "frr", "bedrock-gateway-vpn-apply", "bedrock-gateway-vpn-watch"]
CURSOR = os.environ.get("BEDROCK_GATEWAY_CURSOR", "/var/lib/bedrock-gateway/journal.cursor")
# CloudWatch's limits: 10,000 events and 1,048,576 bytes in a call, counting 26 bytes more for each event; 256 KiB in an event.
EVENTS, BYTES, OVERHEAD, LONGEST = 5000, 900000, 26, 16384


def entries():
    command = ["journalctl", "--output=json", "--no-pager", "--quiet"]
    command += [word for unit in UNITS for word in ("--unit", unit + ".service")]
    if os.path.exists(CURSOR):
        with open(CURSOR, encoding="utf-8") as file:
            command += ["--after-cursor", file.read().strip()]
    else:
        command += ["--boot"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as journal:
        for line in journal.stdout:
            entry = json.loads(line)
            message = entry.get("MESSAGE") or " "
            # journalctl gives a message that is not UTF-8 as a list of bytes.
            message = message if isinstance(message, str) else bytes(message).decode("utf-8", "replace")
            text = "%s: %s" % (entry.get("SYSLOG_IDENTIFIER", "-"), message[:LONGEST])
            yield entry["__CURSOR"], {"timestamp": int(entry["__REALTIME_TIMESTAMP"]) // 1000, "message": text}
    if journal.returncode:
        sys.exit("logs: journalctl ends with %d" % journal.returncode)


def put(events, cursor):
    # CloudWatch requires order by time, and the clock may have been set back.
    events.sort(key=lambda event: event["timestamp"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(events, file)
        file.flush()
        aws("put-log-events", "--log-events", "file://" + file.name)
    with open(CURSOR + ".new", "w", encoding="utf-8") as file:
        file.write(cursor)
    os.replace(CURSOR + ".new", CURSOR)


def aws(action, *more):
    command = ["aws", "logs", action, "--log-group-name", os.environ["BEDROCK_GATEWAY_LOG_GROUP"], "--log-stream-name",
               os.environ["BEDROCK_GATEWAY_INSTANCE"], *more]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode and "ResourceAlreadyExistsException" not in done.stderr:
        sys.exit("logs: %s: %s" % (action, done.stderr.strip()))


def main():
    if not os.path.exists(CURSOR):
        aws("create-log-stream")
    batch, size, cursor = [], 0, None
    for cursor, event in entries():
        batch.append(event)
        size += len(event["message"].encode()) + OVERHEAD
        if len(batch) == EVENTS or size > BYTES:
            put(batch, cursor)
            batch, size = [], 0
    if batch:
        put(batch, cursor)


if __name__ == "__main__":
    main()
