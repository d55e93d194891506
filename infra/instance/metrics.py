#!/usr/bin/env python3
"""Writes this machine's metrics as one line, from which CloudWatch makes metrics (docs/metrics.md has the list).

The line has CloudWatch's embedded metric format, and the CloudWatch agent sends it as a log. So it takes no right and no endpoint
besides those of the logs. The metrics have no dimension: an alarm looks at the maximum or the sum of all machines, and each
dimension would make metrics of its own, at their price. The line names the machine.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

Amazon Linux 2023 has Python 3.9: no newer syntax.
"""
import json
import os
import re
import socket
import subprocess
import time
import urllib.request

ADMIN = os.environ.get("BEDROCK_GATEWAY_ADMIN", "http://127.0.0.1:9901")
COLLECTOR = os.environ.get("BEDROCK_GATEWAY_COLLECTOR", "http://127.0.0.1:18091")
LOG = os.environ.get("BEDROCK_GATEWAY_LOG", "/var/log/bedrock-gateway/access.jsonl")
OUT = os.path.join(os.path.dirname(LOG), "metrics.jsonl")
# A line has about 2 KB, a day some 3 MB.
LARGEST = 8 << 20
UNITS = ["envoy", "collector", "drain", "agent"]
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? ([-+0-9.eE]+|NaN)$')
# Counters: the line has what was added since the last one.
COUNTERS = [
    ("Calls", "bedrock_requests", ""),
    ("CallErrors", "bedrock_errors", ""),
    ("InputTokens", "bedrock_tokens", 'kind="input"'),
    ("OutputTokens", "bedrock_tokens", 'kind="output"'),
]
# Of the collector (docs/audit.md).
COLLECTOR_GAUGES = [
    ("CollectorLagSeconds", "log_lag_seconds"),
    ("CollectorStoreWaitSeconds", "store_wait_seconds"),
]
COLLECTOR_COUNTERS = [
    ("RecordsStored", ["records_stored_total"]),
    ("EntriesRejected", ["entries_rejected_total", "records_refused_total"]),
    ("FeedEntriesDropped", ["feed_entries_dropped_total", "envoy_feed_dropped_total"]),
    ("AuditGaps", ["gaps_total"]),
    ("CallsWithoutRecord", ["calls_lost_total", "calls_unknown_total"]),
    ("EnvoyWritesFailed", ["envoy_write_failed_total"]),
    ("EntriesLost", ["envoy_entries_lost_max_total"]),
]


def run(*command):
    """The output of a command, which may fail: `systemctl is-active` does for each unit that is not."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              timeout=10)
        return done.stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine():
    found = {}
    disk = os.statvfs(os.path.dirname(LOG))
    found["DiskUsedPercent"] = 100 * (disk.f_blocks - disk.f_bfree) / ((disk.f_blocks - disk.f_bfree + disk.f_bavail) or 1)
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = {line.split(":")[0]: int(line.split()[1]) for line in file}
    found["MemoryUsedPercent"] = 100 * (1 - memory["MemAvailable"] / memory["MemTotal"])
    states = run("systemctl", "is-active", *["bedrock-gateway-%s.service" % unit for unit in UNITS]).split()
    found["ServicesDown"] = len(UNITS) - states.count("active")
    return found


def clock():
    """The largest error that the clock can have, as chrony estimates it; AWS's time service is chrony's default source.

    https://chrony-project.org/doc/4.5/chronyc.html, "tracking", has this sum, and the order of the fields.
    """
    fields = run("chronyc", "-c", "tracking").strip().split(",")
    if len(fields) < 14 or fields[13] == "Not synchronised":
        return {"ClockUnsynchronised": 1}
    offset, delay, dispersion = float(fields[4]), float(fields[10]), float(fields[11])
    return {"ClockUnsynchronised": 0, "ClockErrorMs": 1000 * (abs(offset) + dispersion + delay / 2)}


def behind():
    """The bytes of the access log that the collector has not stored (docs/audit.md, the checkpoint)."""
    folder, name = os.path.split(LOG)
    entries = [entry for entry in os.scandir(folder) if entry.name == name or entry.name.startswith(name + "-")]
    # Rotated files by their time; the current one is the newest.
    entries.sort(key=lambda entry: (entry.name == name, entry.name))
    files = [entry.stat() for entry in entries]
    try:
        with open(LOG + ".checkpoint.json", encoding="utf-8") as file:
            checkpoint = json.load(file)
    except (OSError, ValueError):
        return {"CollectorBehindBytes": sum(file.st_size for file in files)}
    inodes = [file.st_ino for file in files]
    at = inodes.index(checkpoint["inode"]) if checkpoint["inode"] in inodes else None
    if at is None:
        return {"CollectorBehindBytes": sum(file.st_size for file in files)}
    rest = files[at].st_size - checkpoint["offset"]
    return {"CollectorBehindBytes": max(0, rest) + sum(file.st_size for file in files[at + 1:])}


def samples(url):
    with urllib.request.urlopen(url, timeout=5) as page:
        for line in page.read().decode("utf-8", "replace").splitlines():
            found = SAMPLE.match(line)
            if found and found.group(3) != "NaN":
                yield found.group(1), found.group(2) or "", float(found.group(3))


def envoy(before):
    """Envoy's metrics, and the counters as they are now."""
    try:
        seen = list(samples(ADMIN + "/stats/prometheus"))
    except (OSError, ValueError):
        return {}, {}

    def values(name, label=""):
        return [value for found, labels, value in seen if found == name and label in labels]

    found = {
        "ActiveCalls": sum(values("envoy_http_downstream_rq_active", 'conn_manager_prefix="gateway"')),
        "Connections": sum(values("envoy_http_downstream_cx_active", 'conn_manager_prefix="gateway"')),
        "EndpointsDown": sum(values("envoy_cluster_membership_total", 'cluster_name="bedrock'))
        - sum(values("envoy_cluster_membership_healthy", 'cluster_name="bedrock')),
    }
    for metric, name, choose in (
        ("CredentialsSecondsLeft", "bedrock_credentials_seconds_left", min),
        ("CatalogueAgeSeconds", "bedrock_catalogue_age_seconds", max),
        ("BedrockClockOffsetMs", "bedrock_clock_offset_ms", max),
    ):
        if values(name):
            found[metric] = choose(values(name))
    counters = {}
    for metric, name, label in COUNTERS:
        counters[metric] = sum(values(name, label))
        then = before.get(metric, 0)
        # A smaller value: Envoy was started again.
        found[metric] = counters[metric] - then if counters[metric] >= then else counters[metric]
    return found, counters


def collector(before):
    """The collector's own metrics, and its counters as they are now. Without an answer it is down, whatever systemd says."""
    try:
        seen = {name: value for name, _, value in samples(COLLECTOR + "/metrics")}
    except (OSError, ValueError):
        return {"CollectorUp": 0}, {}

    def value(name):
        return seen.get("audit_collector_" + name, 0)

    found = {"CollectorUp": 1}
    found.update((metric, value(name)) for metric, name in COLLECTOR_GAUGES)
    counters = {"CollectorStart": value("start_time_seconds")}
    then = before.get("CollectorStart")
    found["CollectorRestarts"] = int(then is not None and then != counters["CollectorStart"])
    for metric, names in COLLECTOR_COUNTERS:
        counters[metric] = sum(value(name) for name in names)
        found[metric] = counters[metric] - (0 if found["CollectorRestarts"] else before.get(metric, 0))
    return found, counters


def unit(name):
    for end, unit_of in (("Percent", "Percent"), ("Ms", "Milliseconds"), ("Bytes", "Bytes"), ("SecondsLeft", "Seconds"), ("Seconds", "Seconds")):
        if name.endswith(end):
            return unit_of
    return "Count"


def main():
    state = OUT + ".counters"
    try:
        with open(state, encoding="utf-8") as file:
            before = json.load(file)
    except (OSError, ValueError):
        before = {}
    found, counters = {}, dict(before)
    for part in (envoy, collector):
        figures, now = part(before)
        found.update(figures)
        counters.update(now)
    for part in (machine, clock, behind):
        found.update(part())
    with open(state + ".new", "w", encoding="utf-8") as file:
        json.dump(counters, file)
    os.replace(state + ".new", state)
    line = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [{
                "Namespace": "BedrockGateway/" + os.environ["BEDROCK_GATEWAY_ENVIRONMENT"],
                "Dimensions": [[]],
                "Metrics": [{"Name": name, "Unit": unit(name)} for name in sorted(found)],
            }],
        },
        "Machine": socket.gethostname(),
    }
    line.update((name, round(value, 3)) for name, value in found.items())
    if os.path.exists(OUT) and os.path.getsize(OUT) > LARGEST:
        os.replace(OUT, OUT + "-old")
    with open(OUT, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
