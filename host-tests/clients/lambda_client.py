"""A client of the Lambda-based proxy's API: `lambda_client.py API_BASE_URL`.

It calls as that proxy's pages and scripts show (docs/API_REFERENCE.md, scripts/test-*.sh of
github.com/freshie/bedrock-cross-partition-inferencing), and knows nothing of the gateway. Prints one JSON object for each call.
"""

import json
import sys
import urllib.error
import urllib.request

BASE = sys.argv[1]
HEADERS = {
    "Authorization": "Bearer token-of-api-gateway",
    "X-API-Key": "key-of-api-gateway",
    "Content-Type": "application/json",
}
MESSAGES = [{"role": "user", "content": "Explain quantum computing in simple terms."}]
CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": MESSAGES}
SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"
TITAN = "amazon.titan-text-express-v1"


def send(name, method, path, body=None):
    request = urllib.request.Request(BASE + path, data=body, headers=HEADERS, method=method)
    row = {"call": name}
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            row.update(status=response.status, answer=json.loads(response.read()), headers=dict(response.headers))
    except urllib.error.HTTPError as error:
        row.update(status=error.code, answer=json.loads(error.read()), headers=dict(error.headers))
    except Exception as error:  # The test checks the class.
        row["error"] = {"class": type(error).__name__, "message": str(error)}
    row["headers"] = {name.lower(): value for name, value in row.get("headers", {}).items()}
    print(json.dumps(row), flush=True)


def invoke(name, path="/bedrock/invoke-model", **payload):
    send(name, "POST", path, json.dumps(payload).encode())


formats = {"contentType": "application/json", "accept": "application/json"}
titan = {"inputText": "What is the capital of France?", "textGenerationConfig": {"maxTokenCount": 50, "temperature": 0.7}}
invoke("titan", modelId=TITAN, **formats, body=titan)
invoke("claude", modelId=SONNET, **formats, body=CLAUDE)
invoke("profile", modelId="us." + SONNET, body=CLAUDE)
invoke("no version", modelId=SONNET, body={"messages": MESSAGES, "max_tokens": 100})
invoke("text", modelId=SONNET, **formats, body=json.dumps({"messages": MESSAGES, "max_tokens": 100}))
invoke("vpn", path="/vpn/bedrock/invoke-model", modelId=SONNET, body=CLAUDE)
invoke("5 MB", modelId=SONNET, body={**CLAUDE, "messages": [{"role": "user", "content": "x" * 5_000_000}]})
invoke("large answer", modelId="fault.large-5000k", body=CLAUDE)
send("models", "GET", "/bedrock/models")
send("route", "GET", "/bedrock/invoke-model")
invoke("throttled", modelId="fault.status-429", body=CLAUDE)
invoke("model error", modelId="fault.status-424", body=CLAUDE)
invoke("unknown model", modelId="unknown.model-v1:0", body=CLAUDE)
invoke("denied model", modelId="meta.llama4-scout-17b-instruct-v1:0", body=CLAUDE)
invoke("wrong body", modelId=SONNET, body={"messages": MESSAGES})
invoke("no model", body=CLAUDE)
send("not JSON", "POST", "/bedrock/invoke-model", b'{"modelId": ')
send("no path", "GET", "/elsewhere")
invoke("cut", modelId="fault.reset-midstream", body=CLAUDE)
