#!/usr/bin/env python3
"""Replaces the AWS CLI on a machine of the lab: sends its arguments to the double and does what that answers."""
import json
import os
import sys
import time

place = os.environ.get("CLOUD_DIR", "/opt/cloud")
name = os.path.join(place, "%d-%d" % (os.getpid(), time.monotonic_ns()))
with open(name + ".new", "w", encoding="utf-8") as file:
    json.dump(sys.argv[1:], file)
os.rename(name + ".new", name + ".asked")
deadline = time.monotonic() + 15
while not os.path.exists(name + ".answer"):
    if time.monotonic() > deadline:
        sys.exit("aws: no answer")
    time.sleep(0.01)
with open(name + ".answer", encoding="utf-8") as file:
    answer = json.load(file)
os.remove(name + ".answer")
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["code"])
