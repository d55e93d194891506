"""Calls every operation of the Bedrock double with boto3, without a gateway.

Usage: direct.py HOST:PORT CA_PEM

The double must run with --lenient-headers, since an SDK sends headers that no gateway lets pass. Names of Bedrock's hosts
are resolved to the double here, in this process. Needs boto3; prints one line a call and ends with 1 if one fails.
"""

import json
import socket
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

REGION = "us-east-1"
ACCOUNT = "123456789012"
SONNET = "us.anthropic.claude-3-5-sonnet-20241022-v2:0"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


def required_members(shape, value, at):
    """Checks that a parsed answer has every member that the service's model requires."""
    if shape.type_name == "structure" and isinstance(value, dict) and not getattr(shape, "is_document_type", False):
        if not getattr(shape, "is_tagged_union", False):
            for name in shape.required_members:
                assert value.get(name) is not None, f"{at}.{name} is missing"
        for name, member in shape.members.items():
            if value.get(name) is not None:
                required_members(member, value[name], f"{at}.{name}")
    elif shape.type_name == "list":
        for nth, item in enumerate(value):
            required_members(shape.member, item, f"{at}[{nth}]")


def main():
    address, ca = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    resolve = socket.getaddrinfo
    socket.getaddrinfo = lambda name, *rest, **named: resolve(
        host if name.endswith(".amazonaws.com") else name, *rest, **named
    )

    def client(service):
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=f"https://{service}.{REGION}.amazonaws.com:{port}",
            verify=ca,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
            **KEYS,
        )

    runtime, control = client("bedrock-runtime"), client("bedrock")
    failed = 0

    def call(of, method, check=lambda answer: None, **arguments):
        nonlocal failed
        try:
            answer = getattr(of, method)(**arguments)
            operation = of.meta.service_model.operation_model(of.meta.method_to_api_mapping[method])
            required_members(operation.output_shape, answer, method)
            seen = check(answer)
            print(f"ok    {method} {seen if seen is not None else ''}")
        except Exception as error:  # Reports every failure.
            failed += 1
            print(f"FAIL  {method}: {type(error).__name__}: {error}")

    def refused(of, method, code, **arguments):
        nonlocal failed
        try:
            getattr(of, method)(**arguments)
            failed += 1
            print(f"FAIL  {method}: {code} was expected")
        except ClientError as error:
            if error.response["Error"]["Code"] != code or not isinstance(error, getattr(of.exceptions, code, ClientError)):
                failed += 1
                print(f"FAIL  {method}: {error}")
            else:
                print(f"ok    {method} is refused with {code}")

    messages = [{"role": "user", "content": [{"text": "hello there"}]}]
    anthropic = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "hello there"}],
    }
    body = json.dumps(anthropic)

    def usage(answer):
        used = answer["usage"]
        assert (used["inputTokens"], used["outputTokens"]) == (2, 3), used
        return answer["output"]["message"]["content"][0]["text"]

    def token_headers(answer):
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert headers["x-amzn-bedrock-input-token-count"] == "2", headers
        assert answer["ResponseMetadata"]["RequestId"] == headers["x-amzn-requestid"]
        return json.loads(answer["body"].read())["content"][0]["text"]

    def converse_events(answer):
        events = list(answer["stream"])
        for event in events:
            required_members(stream_shape("ConverseStream", "stream"), event, "stream")
        assert events[-1]["metadata"]["usage"]["outputTokens"] == 3, events[-1]
        return "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)

    def chunks(answer):
        parsed = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        assert parsed[-1]["type"] == "message_stop", parsed[-1]
        assert parsed[-1]["amazon-bedrock-invocationMetrics"]["inputTokenCount"] == 2, parsed[-1]
        return "".join(one["delta"]["text"] for one in parsed if one["type"] == "content_block_delta")

    def stream_shape(operation, member):
        return runtime.meta.service_model.operation_model(operation).output_shape.members[member]

    def throttled_midway(answer):
        texts = 0
        try:
            for event in answer["stream"]:
                texts += "contentBlockDelta" in event
        except EventStreamError as error:
            assert "throttlingException" in str(error), error
            return f"{texts} words, then {error}"
        raise AssertionError("no exception in the stream")

    call(runtime, "converse", usage, modelId=SONNET, messages=messages)
    arn = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile/{SONNET}"
    call(runtime, "converse", usage, modelId=arn, messages=messages)
    call(runtime, "converse_stream", converse_events, modelId=SONNET, messages=messages)
    call(runtime, "converse_stream", throttled_midway, modelId="fault.stream-exception", messages=messages)
    call(runtime, "invoke_model", token_headers, modelId=SONNET, body=body)
    call(runtime, "invoke_model", modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": "a b"}))
    call(runtime, "invoke_model_with_response_stream", chunks, modelId=SONNET, body=body)
    count = lambda answer: {2: "2 tokens"}[answer["inputTokens"]]
    call(runtime, "count_tokens", count, modelId=SONNET, input={"converse": {"messages": messages}})
    call(runtime, "count_tokens", count, modelId=SONNET, input={"invokeModel": {"body": body}})
    call(
        runtime,
        "apply_guardrail",
        lambda answer: answer["action"],
        guardrailIdentifier="g1",
        guardrailVersion="1",
        source="INPUT",
        content=[{"text": {"text": "this is forbidden"}}],
    )
    call(
        runtime,
        "invoke_guardrail_checks",
        messages=messages,
        checks={"contentFilter": {"categories": [{"category": "HATE"}]}, "sensitiveInformation": {"entities": [{"type": "EMAIL"}]}},
    )
    output = {"s3OutputDataConfig": {"s3Uri": "s3://bucket/prefix"}}
    started = []
    call(
        runtime,
        "start_async_invoke",
        lambda answer: started.append(answer["invocationArn"]),
        modelId="amazon.nova-lite-v1:0",
        modelInput={"prompt": "x"},
        outputDataConfig=output,
    )
    call(runtime, "get_async_invoke", lambda answer: answer["status"], invocationArn=started[0] if started else "none")
    call(runtime, "list_async_invokes", lambda answer: len(answer["asyncInvokeSummaries"]))

    models = lambda answer: len(answer["modelSummaries"])
    call(control, "list_foundation_models", models)
    call(control, "list_foundation_models", models, byProvider="Anthropic", byOutputModality="TEXT", byInferenceType="ON_DEMAND")
    call(control, "get_foundation_model", modelIdentifier="anthropic.claude-3-5-sonnet-20241022-v2:0")
    call(control, "get_foundation_model_availability", modelId="amazon.nova-lite-v1:0")
    call(
        control,
        "list_inference_profiles",
        lambda answer: (len(answer["inferenceProfileSummaries"]), answer.get("nextToken")),
        maxResults=10,
        typeEquals="SYSTEM_DEFINED",
    )
    call(control, "get_inference_profile", inferenceProfileIdentifier=arn)
    for method in (
        "list_imported_models",
        "list_custom_models",
        "list_provisioned_model_throughputs",
        "list_prompt_routers",
        "list_marketplace_model_endpoints",
    ):
        call(control, method)

    refused(runtime, "converse", "ValidationException", modelId=SONNET.removeprefix("us."), messages=messages)
    refused(runtime, "converse", "ResourceNotFoundException", modelId="unknown.nothing-v1:0", messages=messages)
    refused(runtime, "converse", "ThrottlingException", modelId="fault.status-429", messages=messages)
    refused(runtime, "invoke_model", "ServiceUnavailableException", modelId="us.fault.status-503", body=body)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


main()
