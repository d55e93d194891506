"""Calls the gateway with clients for Python and with command lines: `matrix.py CLIENT [COMMAND …]`.

The environment alone says where the gateway is, with the variables that these clients document, and has keys of the caller's
own. Prints one JSON object for each call: `client`, `version`, `call`, `streams`, and `text`, `input`, `output` and `events`,
or `error` with the name that the client gives it. `host-tests/tests/envoy/client_matrix.rs` reads them.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
# The gateway's policy refuses it.
DENIED = "anthropic.claude-3-haiku-20240307-v1:0"
QUESTION = "hello there, how do you do?"
MESSAGES = [{"role": "user", "content": [{"text": QUESTION}]}]
NATIVE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}


def answer(text, read, written, **more):
    return {"text": text, "input": read, "output": written, **more}


class Client:
    """Prints a row for each call of a client."""

    def __init__(self, name, number):
        self.name, self.version = name, number

    def row(self, call, streams, result):
        print(json.dumps({"client": self.name, "version": self.version, "call": call, "streams": streams, **result}), flush=True)

    def call(self, call, run, streams=False):
        try:
            self.row(call, streams, run())
        except Exception as error:  # The test checks the name.
            self.row(call, streams, raised(error))

    async def acall(self, call, run, streams=False):
        try:
            self.row(call, streams, await run())
        except Exception as error:
            self.row(call, streams, raised(error))


def raised(error):
    return {"error": error.name if isinstance(error, Failed) else type(error).__name__, "message": str(error)}


class Failed(Exception):
    """An error of a program, with the name that it gives it."""

    def __init__(self, name, text):
        super().__init__(text)
        self.name = name


def converse_answer(response):
    usage = response["usage"]
    return answer(response["output"]["message"]["content"][0]["text"], usage["inputTokens"], usage["outputTokens"])


def converse_events(events):
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    usage = next(event["metadata"]["usage"] for event in events if "metadata" in event)
    return answer(text, usage["inputTokens"], usage["outputTokens"], events=len(events))


def native_answer(body):
    message = json.loads(body)
    return answer(message["content"][0]["text"], message["usage"]["input_tokens"], message["usage"]["output_tokens"])


def native_events(events):
    chunks = [json.loads(event["chunk"]["bytes"]) for event in events]
    text = "".join(chunk["delta"]["text"] for chunk in chunks if chunk["type"] == "content_block_delta")
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    return answer(text, metrics["inputTokenCount"], metrics["outputTokenCount"], events=len(chunks))


def client_boto3():
    import boto3

    client, runtime = Client("boto3", version("boto3")), boto3.client("bedrock-runtime")
    native = dict(modelId=MODEL, body=json.dumps(NATIVE))
    client.call("Converse", lambda: converse_answer(runtime.converse(modelId=MODEL, messages=MESSAGES)))
    stream = lambda: list(runtime.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"])
    client.call("ConverseStream", lambda: converse_events(stream()), streams=True)
    client.call("InvokeModel", lambda: native_answer(runtime.invoke_model(**native)["body"].read()))
    stream = lambda: list(runtime.invoke_model_with_response_stream(**native)["body"])
    client.call("InvokeModelWithResponseStream", lambda: native_events(stream()), streams=True)
    client.call("refused", lambda: converse_answer(runtime.converse(modelId=DENIED, messages=MESSAGES)))


def client_aiobotocore():
    from aiobotocore.session import get_session

    client, native = Client("aiobotocore", version("aiobotocore")), dict(modelId=MODEL, body=json.dumps(NATIVE))

    async def calls():
        async with get_session().create_client("bedrock-runtime") as runtime:

            async def converse(model):
                return converse_answer(await runtime.converse(modelId=model, messages=MESSAGES))

            async def converse_stream():
                response = await runtime.converse_stream(modelId=MODEL, messages=MESSAGES)
                return converse_events([event async for event in response["stream"]])

            async def invoke():
                response = await runtime.invoke_model(**native)
                return native_answer(await response["body"].read())

            async def invoke_stream():
                response = await runtime.invoke_model_with_response_stream(**native)
                return native_events([event async for event in response["body"]])

            await client.acall("Converse", lambda: converse(MODEL))
            await client.acall("ConverseStream", converse_stream, streams=True)
            await client.acall("InvokeModel", invoke)
            await client.acall("InvokeModelWithResponseStream", invoke_stream, streams=True)
            await client.acall("refused", lambda: converse(DENIED))

    asyncio.run(calls())


def client_anthropic():
    import anthropic

    client, bedrock = Client("anthropic (Python)", version("anthropic")), anthropic.AnthropicBedrock(max_retries=0)
    message = dict(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": QUESTION}])

    def of(message, **more):
        return answer(message.content[0].text, message.usage.input_tokens, message.usage.output_tokens, **more)

    def stream():
        with bedrock.messages.stream(**message) as stream:
            events = sum(1 for _ in stream)
            return of(stream.get_final_message(), events=events)

    async def create_async():
        async with anthropic.AsyncAnthropicBedrock(max_retries=0) as bedrock:
            return of(await bedrock.messages.create(**message))

    async def stream_async():
        async with anthropic.AsyncAnthropicBedrock(max_retries=0) as bedrock, bedrock.messages.stream(**message) as stream:
            events = [event async for event in stream]
            return of(await stream.get_final_message(), events=len(events))

    betas = ["context-1m-2025-08-07"]
    client.call("messages.create", lambda: of(bedrock.messages.create(**message)))
    client.call("beta.messages.create", lambda: of(bedrock.beta.messages.create(**message, betas=betas)))
    client.call("messages.stream", stream, streams=True)
    client.call("async messages.create", lambda: asyncio.run(create_async()))
    client.call("async messages.stream", lambda: asyncio.run(stream_async()), streams=True)
    client.call("refused", lambda: of(bedrock.messages.create(**{**message, "model": DENIED})))


def client_litellm():
    import litellm

    litellm.suppress_debug_info = True
    client = Client("LiteLLM", version("litellm"))

    def arguments(route, model=MODEL, **more):
        messages = [{"role": "user", "content": QUESTION}]
        return dict(model=f"bedrock/{route}/{model}", messages=messages, max_tokens=100, num_retries=0, **more)

    def of(response):
        return answer(response.choices[0].message.content, response.usage.prompt_tokens, response.usage.completion_tokens)

    def of_chunks(chunks):
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usage = next(chunk.usage for chunk in reversed(chunks) if getattr(chunk, "usage", None))
        return answer(text, usage.prompt_tokens, usage.completion_tokens, events=len(chunks))

    async def complete_async(route):
        return of(await litellm.acompletion(**arguments(route)))

    async def stream_async(route):
        response = await litellm.acompletion(**arguments(route, **streaming))
        return of_chunks([chunk async for chunk in response])

    streaming = dict(stream=True, stream_options={"include_usage": True})
    for route in ("converse", "invoke"):
        client.call(f"completion, {route}", lambda: of(litellm.completion(**arguments(route))))
        client.call(f"completion, {route}", lambda: of_chunks(list(litellm.completion(**arguments(route, **streaming)))), streams=True)
        client.call(f"acompletion, {route}", lambda: asyncio.run(complete_async(route)))
        client.call(f"acompletion, {route}", lambda: asyncio.run(stream_async(route)), streams=True)
        client.call("refused", lambda: of(litellm.completion(**arguments(route, DENIED))))


def client_langchain():
    from langchain_aws import ChatBedrock, ChatBedrockConverse

    client = Client("langchain-aws", version("langchain-aws"))

    def of(message, **more):
        usage = message.usage_metadata
        text = message.content if isinstance(message.content, str) else "".join(part.get("text", "") for part in message.content)
        return answer(text, usage["input_tokens"], usage["output_tokens"], **more)

    def stream(chat):
        chunks = list(chat.stream(QUESTION))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return of(whole, events=len(chunks))

    for kind in (ChatBedrockConverse, ChatBedrock):
        chat = kind(model=MODEL, max_tokens=100)
        client.call(f"{kind.__name__}.invoke", lambda: of(chat.invoke(QUESTION)))
        client.call(f"{kind.__name__}.stream", lambda: stream(chat), streams=True)
        client.call("refused", lambda: of(kind(model=DENIED, max_tokens=100).invoke(QUESTION)))


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        # An error occurred (AccessDeniedException) when calling the Converse operation: …
        named = re.search(r"\((\w+)\)", done.stderr)
        raise Failed(named.group(1) if named else f"exit code {done.returncode}", done.stderr.strip() or done.stdout.strip())
    return done.stdout


def client_awscli(*command):
    """AWS's command line, which has no commands for streams."""
    command = list(command) or [sys.executable, "-m", "awscli"]
    # aws-cli/1.46.2 Python/…
    client = Client("AWS CLI", output_of([*command, "--version"]).split()[0].removeprefix("aws-cli/"))

    def converse(model):
        arguments = ["bedrock-runtime", "converse", "--model-id", model, "--messages", json.dumps(MESSAGES)]
        return converse_answer(json.loads(output_of([*command, *arguments])))

    def invoke():
        with tempfile.TemporaryDirectory() as folder:
            body, out = os.path.join(folder, "body"), os.path.join(folder, "out")
            with open(body, "w") as file:
                json.dump(NATIVE, file)
            output_of([*command, "bedrock-runtime", "invoke-model", "--model-id", MODEL, "--body", f"fileb://{body}", out])
            with open(out) as file:
                return native_answer(file.read())

    client.call("converse", lambda: converse(MODEL))
    client.call("invoke-model", invoke)
    client.call("refused", lambda: converse(DENIED))


def client_claude(program):
    """Claude Code without a terminal. It also asks for inference profiles, and tries models, before it answers."""
    client = Client("Claude Code", output_of([program, "--version"]).split()[0])

    def ask(*arguments):
        # Its exit code is 1 for an error, which its output describes.
        command, home = [program, "-p", QUESTION, *arguments], os.environ["HOME"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def of(lines, **more):
        result = next(line for line in lines if line["type"] == "result")
        if result["is_error"]:
            raise Failed(result["api_error"], result["result"])
        usage = result["usage"]
        read = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        return answer(result["result"], read, usage["output_tokens"], **more)

    def whole(*arguments):
        return of(ask("--output-format", "json", *arguments))

    def stream():
        lines = ask("--output-format", "stream-json", "--verbose", "--include-partial-messages", "--model", MODEL)
        return of(lines, events=sum(line["type"] == "stream_event" for line in lines))

    client.call("-p", lambda: whole("--model", MODEL))
    client.call("-p, its own choice of a model", whole)
    client.call("-p --output-format stream-json", stream, streams=True)
    client.call("refused", lambda: whole("--model", DENIED))


if __name__ == "__main__":
    globals()[f"client_{sys.argv[1]}"](*sys.argv[2:])
