"""Prints requests that botocore has signed, one JSON object a line: signatures.py COUNT SEED"""

import hashlib
import json
import random
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SEGMENTS = ["/", "/", "a", "Z9", ".", "..", "-_~", "%3A", "%2F", "%20", "%C3%A4", ":", "@", "+", "*", "$", "(", "!", ","]
QUERIES = ["a=1", "b=", "A=%2B", "x=%20y", "x=%C3%A4", "n=a-_.~", "%3D=e", "long=abcdefghij", "a=0", "nextToken=%2F%3D"]
VALUES = ["a", "Z", " ", "  ", ";", "=", ":", "/", ",", '"', "application/json", "%41"]
NAMES = ["accept", "content-type", "x-amzn-bedrock-accept", "x-amzn-bedrock-trace", "x-amzn-bedrock-guardrailidentifier"]
KEYS = [Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        Credentials("ASIAEXAMPLE", "s/+=" * 10, "token/+=" * 100)]
REGIONS = ["us-east-1", "us-west-2", "ca-central-1"]


def pieces(chosen, of, most):
    return "".join(chosen.choice(of) for _ in range(chosen.randint(0, most)))


def signed(chosen):
    path = "/" + pieces(chosen, SEGMENTS, 12)
    if path.endswith(("/.", "/..")):
        # RFC 3986 (5.2.4) keeps a slash at the end, as AWS's SDK for Rust does, and botocore does not. No path of Bedrock ends so.
        path += "a"
    query = "&".join(chosen.choice(QUERIES) for _ in range(chosen.choice([0, 0, 1, 3])))
    host = f"bedrock-runtime.{chosen.choice(REGIONS)}.amazonaws.com"
    headers = [(name, pieces(chosen, VALUES, 6)) for name in NAMES if chosen.random() < 0.5]
    body = chosen.randbytes(chosen.choice([0, 1, 55, 64, 300]))
    timestamp = f"2026{chosen.randint(1, 12):02}{chosen.randint(1, 28):02}T{chosen.randint(0, 23):02}0405Z"
    keys, region = chosen.choice(KEYS), chosen.choice(REGIONS)
    url = f"https://{host}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=chosen.choice(["GET", "POST"]), url=url, headers=dict(headers), data=body)
    request.headers["X-Amz-Date"] = timestamp
    if keys.token:
        request.headers["X-Amz-Security-Token"] = keys.token
    request.context["timestamp"] = timestamp
    signer = SigV4Auth(keys, "bedrock", region)
    canonical = signer.canonical_request(request)
    return {
        "method": request.method, "host": host, "path": path + (f"?{query}" if query else ""), "headers": headers,
        "body_sha256": hashlib.sha256(body).hexdigest(), "access_key": keys.access_key, "secret_key": keys.secret_key,
        "session_token": keys.token, "region": region, "amz_date": timestamp,
        "signature": signer.signature(signer.string_to_sign(request, canonical), request),
    }


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    chosen = random.Random(seed)
    for _ in range(count):
        print(json.dumps(signed(chosen)))


main()
