"""The calls of `cargo xtask demo`: boto3 as any program uses it, pointed at the gateway.

Makes its calls once for each line read from stdin; prints a JSON object for each call, then an empty line.
"""

import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# The ids that a GovCloud program names; Commercial Bedrock requires an inference profile for each.
SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"

MESSAGES = [{"role": "user", "content": [{"text": "What crosses the partition?"}]}]
NATIVE = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "What crosses the partition?"}],
    }
)


def stream(response, key):
    """Reads a stream to its end, when its calls have ended."""
    for _ in response[key]:
        pass
    return response


def calls(runtime, bedrock):
    yield "Converse", lambda: runtime.converse(modelId=SONNET, messages=MESSAGES)
    yield "ConverseStream", lambda: stream(runtime.converse_stream(modelId=LLAMA, messages=MESSAGES), "stream")
    yield "InvokeModel", lambda: read(runtime.invoke_model(modelId=SONNET, body=NATIVE))
    yield (
        "InvokeModelWithResponseStream",
        lambda: stream(runtime.invoke_model_with_response_stream(modelId=SONNET, body=NATIVE), "body"),
    )
    yield (
        "CountTokens",
        lambda: runtime.count_tokens(modelId=SONNET, input={"converse": {"messages": MESSAGES}}),
    )
    yield "ListFoundationModels", lambda: bedrock.list_foundation_models(byProvider="Anthropic")


def read(response):
    response["body"].read()
    return response


def main():
    options = dict(
        endpoint_url=sys.argv[1],
        region_name="us-gov-west-1",
        # The caller's credentials never cross, so these need not be valid.
        aws_access_key_id="local",
        aws_secret_access_key="local",
        # No retries by the SDK, so that a failure shows.
        config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
    )
    runtime, bedrock = boto3.client("bedrock-runtime", **options), boto3.client("bedrock", **options)
    for _ in sys.stdin:
        for name, call in calls(runtime, bedrock):
            start = time.monotonic()
            row = {"call": name, "status": None, "request_id": None, "error": None}
            try:
                metadata = call()["ResponseMetadata"]
            except ClientError as error:
                metadata = error.response["ResponseMetadata"]
                row["error"] = str(error)
            except BotoCoreError as error:
                metadata = {}
                row["error"] = str(error)
            row["ms"] = round((time.monotonic() - start) * 1000)
            row["status"] = metadata.get("HTTPStatusCode")
            row["request_id"] = metadata.get("RequestId")
            print(json.dumps(row), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
