// Calls the gateway with the AWS SDK for JavaScript over HTTP/2 with prior knowledge: `calls.mjs SUITE URL` (SUITE:
// operations, streams, ended), in the directory of its node_modules. Prints one JSON object for each call.
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand } = require(
  "@aws-sdk/client-bedrock-runtime",
);

const modelId = "anthropic.claude-3-5-sonnet-20241022-v2:0";
const messages = [{ role: "user", content: [{ text: "hello there" }] }];
const client = new BedrockRuntimeClient({
  endpoint: process.argv[3],
  region: "us-gov-west-1",
  credentials: { accessKeyId: "AKIACALLERSOWN", secretAccessKey: "callers-own", sessionToken: "callers-own-token" },
  maxAttempts: 1,
});

async function attempt(call, run) {
  let row = { call };
  try {
    row = { ...row, ...(await run()) };
  } catch (error) {
    row.error = { class: error.name, message: error.message, status: error.$metadata?.httpStatusCode };
  }
  console.log(JSON.stringify(row));
}

async function converseStream(modelId) {
  const response = await client.send(new ConverseStreamCommand({ modelId, messages }));
  let [events, usage] = [0, null];
  for await (const event of response.stream) {
    events += 1;
    usage = event.metadata?.usage ?? usage;
  }
  return { status: response.$metadata.httpStatusCode, events, usage };
}

const suites = {
  async operations() {
    await attempt("Converse", async () => {
      const response = await client.send(new ConverseCommand({ modelId, messages }));
      return { status: response.$metadata.httpStatusCode, usage: response.usage };
    });
    await attempt("ConverseStream", () => converseStream(modelId));
    await attempt("InvokeModel 5 MB", async () => {
      const content = "x".repeat(5_000_000);
      const body = JSON.stringify({ anthropic_version: "bedrock-2023-05-31", max_tokens: 100, messages: [{ role: "user", content }] });
      const response = await client.send(new InvokeModelCommand({ modelId, body, contentType: "application/json" }));
      return { status: response.$metadata.httpStatusCode, bytes: response.body.length };
    });
  },
  // Streams at the same time, half of them long: how each ends when the gateway does.
  async ended() {
    const models = Array.from({ length: Number(process.argv[4]) }, (_, number) => `fault.drip-${number % 2 ? "3s" : "500ms"}`);
    await Promise.all(models.map((model) => attempt(model, () => converseStream(model))));
  },
  async streams() {
    await attempt("mid-stream", () => converseStream("fault.stream-exception"));
    await attempt("cut mid-stream", () => converseStream("fault.reset-midstream"));
  },
};

await suites[process.argv[2]]();
client.destroy();
