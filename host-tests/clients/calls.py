"""Calls the gateway with AWS's and Anthropic's SDKs: `calls.py SUITE URL [CA [ARGUMENT …]]`.

Prints one JSON object for each call: its name and its result, or `error` with the exception's class and code. The
tests in `host-tests/tests/envoy` read it; the double checks the requests.
"""

import base64
import hashlib
import json
import os
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"
PROFILE_ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us." + SONNET
MODEL_ARN = "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-text-express-v1"
ROUTER_ARN = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/amazon.nova:1"
ENDPOINT_ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/market"
ID = "abc123def456"
KNOWLEDGE_BASE = "KB12345678"
RERANKER = "amazon.rerank-v1:0"
INVOCATION_ARN = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abc123def456"
NOVA = "amazon.nova-lite-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "hello there"}]}]
NATIVE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}


def client(service, url, ca, attempts=1, **extra):
    keys = {}
    if "AWS_BEARER_TOKEN_BEDROCK" not in os.environ:
        # Keys of the caller's partition, which must not reach Commercial Bedrock.
        keys = dict(aws_access_key_id="AKIACALLERSOWN", aws_secret_access_key="callers-own", aws_session_token="callers-own-token")
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=60, **extra)
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
    except Exception as error:  # The test checks the class.
        row["error"] = {"class": type(error).__name__, "message": str(error)}
    # In one piece: some suites call from several threads.
    print(json.dumps(row) + "\n", end="", flush=True)


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
    """Counts the events before a stream breaks off, and names the exception."""
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


def count_tokens(runtime, model=SONNET):
    response = runtime.count_tokens(modelId=model, input={"converse": {"messages": MESSAGES}})
    return answer(response, tokens=response["inputTokens"])


def listed(response):
    models = response["modelSummaries"]
    return answer(response, models=len(models), providers=sorted({model["providerName"] for model in models}))


def guardrail(runtime):
    content = [{"text": {"text": "hello there"}}]
    return answer(runtime.apply_guardrail(guardrailIdentifier="abc123def456", guardrailVersion="1", source="INPUT", content=content))


def guardrail_checks(runtime):
    messages = [{"role": "user", "content": [{"text": "hello there"}]}]
    checks = {"contentFilter": {"categories": [{"category": "VIOLENCE"}]}}
    return answer(runtime.invoke_guardrail_checks(messages=messages, checks=checks))


def start_async(runtime):
    output = {"s3OutputDataConfig": {"s3Uri": "s3://example-bucket/out"}}
    return answer(runtime.start_async_invoke(modelId=NOVA, modelInput={"inputText": "hello there"}, outputDataConfig=output))


def create_job(bedrock):
    response = bedrock.create_model_invocation_job(
        jobName="nightly",
        roleArn="arn:aws:iam::123456789012:role/batch",
        modelId=NOVA,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://bucket/in/"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
    )
    return answer(response, job=response["jobArn"])


def rag(model, text="hello there"):
    """The arguments of RetrieveAndGenerate."""
    base = {"knowledgeBaseId": KNOWLEDGE_BASE, "modelArn": model}
    return {"input": {"text": text}, "retrieveAndGenerateConfiguration": {"type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": base}}


def rerank(agent):
    model = {"modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{RERANKER}"}
    sources = [{"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}} for text in "ab"]
    response = agent.rerank(
        queries=[{"type": "TEXT", "textQuery": {"text": "hello there"}}],
        sources=sources,
        rerankingConfiguration={
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {"modelConfiguration": model},
        },
    )
    return answer(response, results=len(response["results"]))


def retrieve(agent, base):
    response = agent.retrieve(knowledgeBaseId=base, retrievalQuery={"text": "hello there"})
    return answer(response, results=len(response["retrievalResults"]))


def generate(agent, model=NOVA):
    response = agent.retrieve_and_generate(**rag(model))
    return answer(response, text=response["output"]["text"], session=response["sessionId"])


def generate_stream(agent, model=NOVA):
    """The text of a stream, its session, and the exception that ends it."""
    response = agent.retrieve_and_generate_stream(**rag(model))
    row = answer(response, text="", events=0, session=response["sessionId"])
    try:
        for event in response["stream"]:
            row["events"] += 1
            row["text"] += event.get("output", {}).get("text", "")
    except ClientError as error:
        row.update(raised=type(error).__name__, code=error.response["Error"]["Code"], message=error.response["Error"]["Message"])
    return row


def agent_operations(url, ca):
    agent = client("bedrock-agent-runtime", url, ca)
    attempt("Rerank", lambda: rerank(agent))
    attempt("Retrieve", lambda: retrieve(agent, KNOWLEDGE_BASE))
    attempt("RetrieveAndGenerate", lambda: generate(agent))
    attempt("RetrieveAndGenerateStream", lambda: generate_stream(agent))


def suite_agent(url, ca):
    """The operations of bedrock-agent-runtime, then a stream that breaks off and an ARN of another region."""
    agent_operations(url, ca)
    agent = client("bedrock-agent-runtime", url, ca)
    attempt("broken", lambda: generate_stream(agent, "fault.reset-midstream"))
    attempt("exception", lambda: generate_stream(agent, "fault.stream-exception"))
    attempt("unknown", lambda: retrieve(agent, "KB00000000"))


def suite_operations(url, ca):
    """Every operation that the gateway carries by default and boto3 can call, then every form of a model id and large bodies.

    boto3 has no call for InvokeModelWithBidirectionalStream, which the gateway refuses by name.
    """
    runtime, bedrock = client("bedrock-runtime", url, ca), client("bedrock", url, ca)
    attempt("Converse", lambda: converse(runtime))
    attempt("ConverseStream", lambda: converse_stream(runtime))
    attempt("InvokeModel", lambda: invoke(runtime))
    attempt("InvokeModelWithResponseStream", lambda: invoke_stream(runtime))
    attempt("CountTokens", lambda: count_tokens(runtime))
    attempt("ApplyGuardrail", lambda: guardrail(runtime))
    attempt("InvokeGuardrailChecks", lambda: guardrail_checks(runtime))
    attempt("StartAsyncInvoke", lambda: start_async(runtime))
    attempt("GetAsyncInvoke", lambda: answer(runtime.get_async_invoke(invocationArn=INVOCATION_ARN)))
    attempt("ListAsyncInvokes", lambda: answer(runtime.list_async_invokes()))
    attempt("ListFoundationModels", lambda: listed(bedrock.list_foundation_models(byProvider="Anthropic", byOutputModality="TEXT")))
    attempt("GetFoundationModel", lambda: answer(bedrock.get_foundation_model(modelIdentifier=SONNET)))
    attempt("GetFoundationModelAvailability", lambda: answer(bedrock.get_foundation_model_availability(modelId=SONNET)))
    attempt("ListInferenceProfiles", lambda: answer(bedrock.list_inference_profiles(typeEquals="SYSTEM_DEFINED", maxResults=5)))
    attempt("GetInferenceProfile", lambda: answer(bedrock.get_inference_profile(inferenceProfileIdentifier="us." + SONNET)))
    attempt("ListImportedModels", lambda: answer(bedrock.list_imported_models()))
    attempt("ListCustomModels", lambda: answer(bedrock.list_custom_models()))
    attempt("ListProvisionedModelThroughputs", lambda: answer(bedrock.list_provisioned_model_throughputs()))
    attempt("ListPromptRouters", lambda: answer(bedrock.list_prompt_routers()))
    attempt("ListMarketplaceModelEndpoints", lambda: answer(bedrock.list_marketplace_model_endpoints()))
    attempt("GetImportedModel", lambda: answer(bedrock.get_imported_model(modelIdentifier=ID)))
    attempt("GetCustomModel", lambda: answer(bedrock.get_custom_model(modelIdentifier=ID)))
    attempt("GetCustomModelDeployment", lambda: answer(bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=ID)))
    attempt("GetProvisionedModelThroughput", lambda: answer(bedrock.get_provisioned_model_throughput(provisionedModelId=ID)))
    attempt("GetPromptRouter", lambda: answer(bedrock.get_prompt_router(promptRouterArn=ROUTER_ARN)))
    attempt("GetMarketplaceModelEndpoint", lambda: answer(bedrock.get_marketplace_model_endpoint(endpointArn=ENDPOINT_ARN)))
    attempt("ListGuardrails", lambda: answer(bedrock.list_guardrails(guardrailIdentifier=ID)))
    attempt("GetGuardrail", lambda: answer(bedrock.get_guardrail(guardrailIdentifier=ID, guardrailVersion="1")))
    attempt("GetAccountDataRetention", lambda: answer(bedrock.get_account_data_retention()))
    attempt("GetProject", lambda: answer(bedrock.get_project(projectIdentifier="default")))
    attempt("Converse profile ARN", lambda: converse(runtime, PROFILE_ARN))
    attempt("ConverseStream profile ARN", lambda: converse_stream(runtime, PROFILE_ARN))
    attempt("InvokeModel model ARN", lambda: invoke(runtime, MODEL_ARN, json.dumps({"inputText": "hello there"})))
    attempt("Converse profile id", lambda: converse(runtime, "us." + SONNET))
    attempt("InvokeModel 5 MB", lambda: invoke(runtime, body=padded(5)))
    attempt("InvokeModel 20 MB", lambda: invoke(runtime, body=padded(20)))


def suite_lists(url, ca):
    """What the lists of models show, in pages too, and the descriptions of two models."""
    bedrock = client("bedrock", url, ca)
    models = lambda: bedrock.list_foundation_models()["modelSummaries"]
    pages = lambda: bedrock.get_paginator("list_inference_profiles").paginate(PaginationConfig={"PageSize": 7})
    profiles = lambda: [profile for page in pages() for profile in page["inferenceProfileSummaries"]]
    attempt("ListFoundationModels", lambda: {"ids": [model["modelId"] for model in models()]})
    attempt("ListInferenceProfiles", lambda: {"ids": [profile["inferenceProfileId"] for profile in profiles()]})
    attempt("GetFoundationModel", lambda: answer(bedrock.get_foundation_model(modelIdentifier=SONNET)))
    attempt("GetInferenceProfile", lambda: answer(bedrock.get_inference_profile(inferenceProfileIdentifier="us." + SONNET)))
    attempt("GetFoundationModel of another", lambda: answer(bedrock.get_foundation_model(modelIdentifier=NOVA)))


def suite_batch(url, ca):
    """Batch jobs."""
    attempt("CreateModelInvocationJob", lambda: create_job(client("bedrock", url, ca)))


def suite_optional(url, ca):
    """The operations that a document must list."""
    bedrock = client("bedrock", url, ca)
    attempt("CreateModelInvocationJob", lambda: create_job(bedrock))
    attempt("GetModelInvocationJob", lambda: answer(bedrock.get_model_invocation_job(jobIdentifier=ID)))
    attempt("ListModelInvocationJobs", lambda: answer(bedrock.list_model_invocation_jobs(statusEquals="InProgress", maxResults=5)))
    attempt("StopModelInvocationJob", lambda: answer(bedrock.stop_model_invocation_job(jobIdentifier=ID)))
    agent_operations(url, ca)


def padded(megabytes):
    """A request body of that size, as an image makes it."""
    content = "x" * (megabytes * 1000 * 1000)
    return json.dumps({**NATIVE, "messages": [{"role": "user", "content": content}]})


def suite_errors(url, ca):
    """The exceptions that an SDK raises for the gateway's errors and for Bedrock's."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("throttled", lambda: converse(runtime, "fault.status-429"))
    attempt("model error", lambda: converse(runtime, "fault.status-424"))
    attempt("unknown model", lambda: converse(runtime, "unknown.model-v1:0"))
    attempt("mid-stream", lambda: converse_stream(runtime, "fault.stream-exception"))
    attempt("cut mid-stream", lambda: converse_stream(runtime, "fault.reset-midstream"))
    attempt("govcloud arn", lambda: converse(runtime, "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/abc"))


def suite_streams(url, ca):
    """Streams that break off in the middle, and one that ends normally."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("ConverseStream", lambda: broken_stream(runtime, "converse"))
    attempt("InvokeModelWithResponseStream", lambda: broken_stream(runtime, "invoke"))
    attempt("whole", lambda: converse_stream(runtime))


def suite_converse(url, ca):
    """One call."""
    attempt("Converse", lambda: converse(client("bedrock-runtime", url, ca)))


def suite_large(url, ca):
    """A large body for bearer mode, where the gateway does not buffer it."""
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


def suite_resources(url, ca):
    """1,000 calls that name a guardrail or a project of one region, in every place where SDKs put it, and 40 that name none."""
    runtime, bedrock = (client(service, url, ca, attempts=10) for service in ("bedrock-runtime", "bedrock"))
    guardrail = {"guardrailIdentifier": "g1", "guardrailVersion": "1"}
    native = dict(modelId=SONNET, body=json.dumps(NATIVE))
    places = {
        "guardrail in the body": lambda: runtime.converse(modelId=SONNET, messages=MESSAGES, guardrailConfig=guardrail),
        "guardrail in a header": lambda: runtime.invoke_model(**native, **guardrail),
        "project in the body": lambda: runtime.converse(modelId=SONNET, messages=MESSAGES, projectIdentifier="p1"),
        "project in a header": lambda: runtime.invoke_model(**native, projectIdentifier="p1"),
        "project in the query": lambda: bedrock.list_foundation_models(projectIdentifier="p1"),
    }
    for _ in range(200):
        for name, call in places.items():
            attempt(name, lambda: answer(call()))
    for _ in range(40):
        attempt("no resource", lambda: converse(runtime))


def suite_govcloud(url, ca):
    """Ids of GovCloud, in every place where SDKs put an id."""
    runtime, bedrock = client("bedrock-runtime", url, ca), client("bedrock", url, ca)
    guardrail = "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:guardrail/abc123def456"
    project = "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:project/abc123def456"
    account = "arn:aws:bedrock:us-east-1:111122223333:"
    native = dict(modelId=SONNET, body=json.dumps(NATIVE))
    conversation = dict(modelId=SONNET, messages=MESSAGES)
    output = {"s3OutputDataConfig": {"s3Uri": "s3://example-bucket/out"}}
    start = dict(modelId="us-gov." + NOVA, modelInput={"inputText": "hello there"}, outputDataConfig=output)
    config = lambda identifier: {"guardrailIdentifier": identifier, "guardrailVersion": "1"}
    attempt("guardrail in a header", lambda: answer(runtime.invoke_model(**native, **config(guardrail))))
    attempt("guardrail in a body", lambda: answer(runtime.converse(**conversation, guardrailConfig=config(guardrail))))
    attempt("guardrail in a path", lambda: answer(bedrock.get_guardrail(guardrailIdentifier=guardrail)))
    attempt("project in a header", lambda: answer(runtime.invoke_model(**native, projectIdentifier=project)))
    attempt("project in a body", lambda: answer(runtime.converse(**conversation, projectIdentifier=project)))
    attempt("project in a query", lambda: answer(bedrock.list_foundation_models(projectIdentifier=project)))
    attempt("model of an account", lambda: converse(runtime, account + "provisioned-model/abc123def456"))
    attempt("guardrail of an account", lambda: answer(runtime.converse(**conversation, guardrailConfig=config(account + "guardrail/abc123def456"))))
    attempt("model in a body", lambda: answer(runtime.start_async_invoke(**start)))
    attempt("profile", lambda: converse(runtime, "us-gov." + SONNET))
    attempt("model ARN", lambda: converse(runtime, "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/" + SONNET))


def suite_arns(url, ca):
    """ARNs of the second region, and of two regions."""
    runtime = client("bedrock-runtime", url, ca)
    guardrail = "arn:aws:bedrock:us-west-2:123456789012:guardrail/abc123def456"
    profile = "arn:aws:bedrock:us-west-2:123456789012:inference-profile/us." + SONNET
    config = {"guardrailIdentifier": guardrail, "guardrailVersion": "1"}
    attempt("profile", lambda: converse(runtime, profile))
    attempt("guardrail in a body", lambda: converse(runtime, guardrailConfig=config))
    attempt("guardrail in a header", lambda: answer(runtime.invoke_model(modelId=SONNET, body=json.dumps(NATIVE), **config)))
    attempt("two regions", lambda: converse(runtime, PROFILE_ARN, guardrailConfig=config))


def suite_count(url, ca):
    """CountTokens of a model and of its profiles."""
    runtime = client("bedrock-runtime", url, ca)
    for model in [SONNET, "us." + SONNET, "us-gov." + SONNET, PROFILE_ARN]:
        attempt(model, lambda: count_tokens(runtime, model))


def suite_checks(url, ca):
    """InvokeGuardrailChecks, without retries of the SDK."""
    attempt("InvokeGuardrailChecks", lambda: guardrail_checks(client("bedrock-runtime", url, ca)))


def suite_tab(url, ca):
    """A header with a tab and capitals in its value."""
    runtime = client("bedrock-runtime", url, ca)
    native = dict(modelId=SONNET, body=json.dumps(NATIVE))
    attempt("tab", lambda: answer(runtime.invoke_model(**native, requestMetadata='{"Team":\t"A b"}')))


def suite_stalls(url, ca):
    """A call and a stream."""
    runtime = client("bedrock-runtime", url, ca)
    attempt("Converse", lambda: converse(runtime))
    attempt("ConverseStream", lambda: converse_stream(runtime))


def suite_metadata(url, ca):
    """Request metadata where SDKs put it: none, the caller's own, and a key that only the gateway sets."""
    runtime = client("bedrock-runtime", url, ca)
    native = dict(modelId=SONNET, body=json.dumps(NATIVE))
    conversation = dict(modelId=SONNET, messages=MESSAGES)
    large = [{"role": "user", "content": [{"text": "x" * 20_000_000}]}]
    team, forged = {"team": "a b"}, {"gateway": "another"}
    attempt("Converse", lambda: answer(runtime.converse(**conversation)))
    attempt("Converse own", lambda: answer(runtime.converse(**conversation, requestMetadata=team)))
    attempt("Converse 20 MB", lambda: answer(runtime.converse(modelId=SONNET, messages=large, requestMetadata=team)))
    attempt("Converse forged", lambda: answer(runtime.converse(**conversation, requestMetadata=forged)))
    attempt("ConverseStream", lambda: converse_stream(runtime))
    attempt("ConverseStream forged", lambda: answer(runtime.converse_stream(**conversation, requestMetadata=forged)))
    attempt("InvokeModel", lambda: answer(runtime.invoke_model(**native)))
    attempt("InvokeModel own", lambda: answer(runtime.invoke_model(**native, requestMetadata=json.dumps(team))))
    attempt("InvokeModel forged", lambda: answer(runtime.invoke_model(**native, requestMetadata=json.dumps(forged))))


def suite_job(url, ca):
    """A batch job, with the token and the hash of its body."""
    bedrock, sent = client("bedrock", url, ca), {}

    def note(request, **_):
        sent.update(token=json.loads(request.body)["clientRequestToken"], sha256=hashlib.sha256(request.body).hexdigest())

    bedrock.meta.events.register("before-send", note)
    attempt("CreateModelInvocationJob", lambda: {**create_job(bedrock), **sent})


def suite_new_header(url, ca):
    """A header of Bedrock's that this version of boto3 does not know."""
    runtime = client("bedrock-runtime", url, ca)

    def add(request, **_):
        request.headers["X-Amzn-Bedrock-New"] = "1"

    runtime.meta.events.register("before-sign", add)
    attempt("Converse", lambda: converse(runtime))
    attempt("ConverseStream", lambda: converse_stream(runtime))
    attempt("InvokeModel", lambda: invoke(runtime))
    attempt("InvokeModelWithResponseStream", lambda: invoke_stream(runtime))


def suite_ended(url, ca, count):
    """Streams at the same time: half of them take longer than the gateway waits for them when it ends."""
    count = int(count)
    runtime = client("bedrock-runtime", url, ca, max_pool_connections=count)

    def stream(number):
        model = "fault.drip-3s" if number % 2 else "fault.drip-500ms"
        attempt(model, lambda: converse_stream(runtime, model))

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def suite_principals(url, ca, count, *certificates):
    """Calls with each client certificate (`CERTIFICATE,KEY`; `none`: without one)."""
    for number, pair in enumerate(certificates):
        extra = {} if pair == "none" else {"client_cert": tuple(pair.split(","))}
        runtime = client("bedrock-runtime", url, ca, **extra)
        for _ in range(int(count)):
            attempt(str(number), lambda: converse(runtime))


def suite_rights(url, ca, *certificates):
    """Calls that rules tell apart, with each client certificate (as for `principals`)."""
    for number, pair in enumerate(certificates):
        extra = {} if pair == "none" else {"client_cert": tuple(pair.split(","))}
        runtime, bedrock = client("bedrock-runtime", url, ca, **extra), client("bedrock", url, ca, **extra)
        long = json.dumps({**NATIVE, "max_tokens": 5000})
        attempt(f"{number} Converse", lambda: converse(runtime))
        attempt(f"{number} ConverseStream", lambda: converse_stream(runtime))
        attempt(f"{number} InvokeModel", lambda: invoke(runtime))
        attempt(f"{number} InvokeModel long", lambda: invoke(runtime, body=long))
        attempt(f"{number} StartAsyncInvoke", lambda: start_async(runtime))
        attempt(f"{number} ListFoundationModels", lambda: listed(bedrock.list_foundation_models()))


def suite_steady(url, ca, seconds="4"):
    """Calls for some seconds, each with a text of its own, and every second one a stream."""
    runtime, end, number = client("bedrock-runtime", url, ca), time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        messages = [{"role": "user", "content": [{"text": f"hello {number}"}]}]
        if number % 2:
            attempt("ConverseStream", lambda: {"events": len(list(runtime.converse_stream(modelId=SONNET, messages=messages)["stream"]))})
        else:
            attempt("Converse", lambda: answer(runtime.converse(modelId=SONNET, messages=messages)))
        number += 1


def suite_residency(url, ca, *models):
    """Each model in a path, and in bodies."""
    runtime, bedrock = client("bedrock-runtime", url, ca), client("bedrock", url, ca)
    output = {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}}
    job = dict(jobName="nightly", roleArn="arn:aws:iam::123456789012:role/batch", inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://bucket/in/"}})
    for model in models:
        attempt(f"Converse {model}", lambda: converse(runtime, model))
        attempt(f"ConverseStream {model}", lambda: converse_stream(runtime, model))
        attempt(f"StartAsyncInvoke {model}", lambda: answer(runtime.start_async_invoke(modelId=model, modelInput={"inputText": "x"}, outputDataConfig=output)))
        attempt(f"CreateModelInvocationJob {model}", lambda: answer(bedrock.create_model_invocation_job(modelId=model, outputDataConfig=output, **job)))


def suite_images(url, ca):
    """Calls with images, in each form."""
    runtime = client("bedrock-runtime", url, ca)
    picture = b"\x89PNG\r\n\x1a\n"
    text = base64.b64encode(picture).decode()
    ask = {"text": "what is this?"}
    for count in (0, 2, 3):
        blocks = [{"image": {"format": "png", "source": {"bytes": picture}}}] * count
        talk = [{"role": "user", "content": [ask] + blocks}]
        attempt(f"Converse {count}", lambda: answer(runtime.converse(modelId=SONNET, messages=talk)))
        attempt(f"ConverseStream {count}", lambda: answer(runtime.converse_stream(modelId=SONNET, messages=talk), events=0))
        typed = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text}}] * count
        claude = dict(NATIVE, messages=[{"role": "user", "content": [dict(ask, type="text")] + typed}])
        attempt(f"Claude {count}", lambda: invoke(runtime, body=json.dumps(claude)))
        blocks = [{"image": {"format": "png", "source": {"bytes": text}}}] * count
        nova = {"messages": [{"role": "user", "content": [ask] + blocks}], "inferenceConfig": {"maxTokens": 100}}
        attempt(f"Nova {count}", lambda: invoke(runtime, NOVA, json.dumps(nova)))
    attempt("Titan 0", lambda: invoke(runtime, "amazon.titan-text-express-v1", json.dumps({"inputText": "hello there"})))


def suite_four_kinds(url, ca, *models):
    """Each of four operations with a model of its own."""
    runtime = client("bedrock-runtime", url, ca)
    for call, model in zip([converse, converse_stream, invoke, invoke_stream], models):
        attempt(call.__name__, lambda: call(runtime, model))


def suite_models(url, ca, *models):
    runtime = client("bedrock-runtime", url, ca)
    for model in models:
        attempt(model, lambda: answer(runtime.converse(modelId=model, messages=MESSAGES)))


if __name__ == "__main__":
    suite, url, ca = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    globals()[f"suite_{suite}"](url, ca, *sys.argv[4:])
