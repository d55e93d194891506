"""Real clients against the gateway: `calls.py SUITE URL [CA]`.

Prints one JSON object for each call: its name and what came back, or `error` with the exception's class and code. The
tests in `host-tests/tests/envoy` read it; the double checks what arrived.
"""

import json
import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"
PROFILE_ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us." + SONNET
MODEL_ARN = "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-text-express-v1"
MESSAGES = [{"role": "user", "content": [{"text": "hello there"}]}]
NATIVE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}


def client(service, url, ca, **extra):
    keys = {}
    if "AWS_BEARER_TOKEN_BEDROCK" not in os.environ:
        # Keys of the caller's own partition, which must not cross.
        keys = dict(aws_access_key_id="AKIACALLERSOWN", aws_secret_access_key="callers-own", aws_session_token="callers-own-token")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60, **extra)
    return boto3.client(service, endpoint_url=url, region_name="us-gov-west-1", verify=ca, config=config, **keys)


def attempt(name, call):
    row = {"call": name}
    try:
        row.update(call() or {})
    except ClientError as error:
        row["error"] = {
            "class": type(error).__name__,
            "code": error.response["Error"]["Code"],
            "message": error.response["Error"]["Message"],
            # An exception inside a stream has no status of its own.
            "status": error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
        }
    except Exception as error:  # what a stream or a connection raises: the test judges it by its class
        row["error"] = {"class": type(error).__name__, "message": str(error)}
    print(json.dumps(row), flush=True)


def answer(response, **fields):
    metadata = response["ResponseMetadata"]
    return {"status": metadata["HTTPStatusCode"], "request_id": metadata.get("RequestId"), **fields}


def converse(runtime, model=SONNET, **extra):
    response = runtime.converse(modelId=model, messages=MESSAGES, **extra)
    return answer(response, usage=response["usage"])


def converse_stream(runtime, model=SONNET):
    response = runtime.converse_stream(modelId=model, messages=MESSAGES)
    events = list(response["stream"])
    usage = [event["metadata"]["usage"] for event in events if "metadata" in event]
    return answer(response, events=len(events), usage=usage[0] if usage else None)


def invoke(runtime, model=SONNET, body=None):
    response = runtime.invoke_model(modelId=model, body=body or json.dumps(NATIVE))
    return answer(response, bytes=len(response["body"].read()))


def broken_stream(runtime, operation):
    """How many events came before the stream broke off, and what was raised then."""
    model = "fault.reset-midstream"
    if operation == "converse":
        stream = runtime.converse_stream(modelId=model, messages=MESSAGES)["stream"]
    else:
        stream = runtime.invoke_model_with_response_stream(modelId=model, body=json.dumps(NATIVE))["body"]
    events = 0
    try:
        for _ in stream:
            events += 1
    except ClientError as error:
        return {"events": events, "raised": type(error).__name__, "code": error.response["Error"]["Code"]}
    return {"events": events}


def invoke_stream(runtime, model=SONNET):
    response = runtime.invoke_model_with_response_stream(modelId=model, body=json.dumps(NATIVE))
    chunks = [json.loads(event["chunk"]["bytes"]) for event in response["body"]]
    return answer(response, events=len(chunks), metrics=chunks[-1].get("amazon-bedrock-invocationMetrics"))


def count_tokens(runtime):
    response = runtime.count_tokens(modelId=SONNET, input={"converse": {"messages": MESSAGES}})
    return answer(response, tokens=response["inputTokens"])


def listed(response):
    models = response["modelSummaries"]
    return answer(response, models=len(models), providers=sorted({model["providerName"] for model in models}))


def suite_operations(url, ca):
    """Every operation that issue-worthy clients use, and every form of a model id."""
    runtime, bedrock = client("bedrock-runtime", url, ca), client("bedrock", url, ca)
    attempt("Converse", lambda: converse(runtime))
    attempt("ConverseStream", lambda: converse_stream(runtime))
    attempt("InvokeModel", lambda: invoke(runtime))
    attempt("InvokeModelWithResponseStream", lambda: invoke_stream(runtime))
    attempt("CountTokens", lambda: count_tokens(runtime))
    attempt("ListFoundationModels", lambda: listed(bedrock.list_foundation_models(byProvider="Anthropic", byOutputModality="TEXT")))
    attempt("GetFoundationModel", lambda: answer(bedrock.get_foundation_model(modelIdentifier=SONNET)))
    attempt("ListInferenceProfiles", lambda: answer(bedrock.list_inference_profiles(typeEquals="SYSTEM_DEFINED", maxResults=5)))
    attempt("Converse profile ARN", lambda: converse(runtime, PROFILE_ARN))
    attempt("ConverseStream profile ARN", lambda: converse_stream(runtime, PROFILE_ARN))
    attempt("InvokeModel model ARN", lambda: invoke(runtime, MODEL_ARN, json.dumps({"inputText": "hello there"})))
    attempt("Converse profile id", lambda: converse(runtime, "us." + SONNET))
    attempt("InvokeModel 5 MB", lambda: invoke(runtime, body=padded(5)))
    attempt("InvokeModel 20 MB", lambda: invoke(runtime, body=padded(20)))


def padded(megabytes):
    """A request of that size: an image does the same to a real one."""
    content = "x" * (megabytes * 1000 * 1000)
    return json.dumps({**NATIVE, "messages": [{"role": "user", "content": content}]})


def suite_errors(url, ca):
    """What an SDK raises for the gateway's own answers and for Bedrock's."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("throttled", lambda: converse(runtime, "fault.status-429"))
    attempt("model error", lambda: converse(runtime, "fault.status-424"))
    attempt("unknown model", lambda: converse(runtime, "nobody.knows-this-v1:0"))
    attempt("mid-stream", lambda: converse_stream(runtime, "fault.stream-exception"))
    attempt("cut mid-stream", lambda: converse_stream(runtime, "fault.reset-midstream"))
    attempt("govcloud arn", lambda: converse(runtime, "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/abc"))


def suite_streams(url, ca):
    """Streams that break off after a good beginning, and one that does not."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("ConverseStream", lambda: broken_stream(runtime, "converse"))
    attempt("InvokeModelWithResponseStream", lambda: broken_stream(runtime, "invoke"))
    attempt("whole", lambda: converse_stream(runtime))


def suite_converse(url, ca):
    """One call: for the states in which one call says it all."""
    attempt("Converse", lambda: converse(client("bedrock-runtime", url, ca)))


def suite_large(url, ca):
    """A body for bearer mode, which is not held."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("Converse", lambda: converse(runtime))
    attempt("ConverseStream", lambda: converse_stream(runtime))
    attempt("InvokeModel 20 MB", lambda: invoke(runtime, body=padded(20)))


def suite_overlong(url, ca):
    """A body over the gateway's limit."""
    attempt("InvokeModel 26 MiB", lambda: invoke(client("bedrock-runtime", url, ca), body="x" * (26 << 20)))


def suite_anthropic(url, ca):
    """Anthropic's own SDK, which writes a raw `:` into the path."""
    from anthropic import AnthropicBedrock

    bedrock = AnthropicBedrock(
        base_url=url, aws_access_key="AKIACALLERSOWN", aws_secret_key="callers-own", aws_region="us-gov-west-1", max_retries=0
    )
    message = dict(model=SONNET, max_tokens=100, messages=[{"role": "user", "content": "hello there"}])

    def create(**extra):
        usage = bedrock.messages.create(**{**message, **extra}).usage
        return {"input": usage.input_tokens, "output": usage.output_tokens}

    def stream():
        with bedrock.messages.stream(**message) as events:
            return {"text": "".join(events.text_stream)}

    attempt("messages.create", create)
    attempt("messages.create ARN", lambda: create(model=PROFILE_ARN))
    attempt("messages.stream", stream)


if __name__ == "__main__":
    suite, url, ca = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    globals()[f"suite_{suite}"](url, ca)
