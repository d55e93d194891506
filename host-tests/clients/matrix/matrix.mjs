// Calls the gateway with clients for JavaScript: `matrix.mjs CLIENT`, in the directory of its node_modules. The environment
// and the rows that it prints are those of `matrix.py`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const model = "anthropic.claude-sonnet-4-5-20250929-v1:0";
// The gateway's policy refuses it.
const denied = "anthropic.claude-3-haiku-20240307-v1:0";
const question = "hello there, how do you do?";

function version(name) {
  return JSON.parse(readFileSync(`${process.cwd()}/node_modules/${name}/package.json`, "utf8")).version;
}

function rows(client, version) {
  return async (call, streams, run) => {
    const row = { client, version, call, streams };
    try {
      console.log(JSON.stringify({ ...row, ...(await run()) }));
    } catch (error) {
      // Anthropic's SDK gives its errors the name of their class only.
      const name = error.name === "Error" ? error.constructor.name : error.name;
      console.log(JSON.stringify({ ...row, error: name, message: error.message }));
    }
  };
}

async function sdk(http1) {
  const runtime = require("@aws-sdk/client-bedrock-runtime");
  const { NodeHttpHandler } = require("@smithy/node-http-handler");
  const client = new runtime.BedrockRuntimeClient(http1 ? { requestHandler: new NodeHttpHandler() } : {});
  const call = rows("AWS SDK for JavaScript", version("@aws-sdk/client-bedrock-runtime"));
  const messages = [{ role: "user", content: [{ text: question }] }];
  const body = JSON.stringify({
    anthropic_version: "bedrock-2023-05-31",
    max_tokens: 100,
    messages: [{ role: "user", content: question }],
  });
  const native = { modelId: model, body, contentType: "application/json" };
  const text = (bytes) => JSON.parse(Buffer.from(bytes).toString());

  const converse = async (modelId) => {
    const { output, usage } = await client.send(new runtime.ConverseCommand({ modelId, messages }));
    return { text: output.message.content[0].text, input: usage.inputTokens, output: usage.outputTokens };
  };
  await call("Converse", false, () => converse(model));
  await call("ConverseStream", true, async () => {
    const { stream } = await client.send(new runtime.ConverseStreamCommand({ modelId: model, messages }));
    const row = { text: "", events: 0 };
    for await (const event of stream) {
      row.events += 1;
      row.text += event.contentBlockDelta?.delta.text ?? "";
      const usage = event.metadata?.usage;
      if (usage) Object.assign(row, { input: usage.inputTokens, output: usage.outputTokens });
    }
    return row;
  });
  await call("InvokeModel", false, async () => {
    const message = text((await client.send(new runtime.InvokeModelCommand(native))).body);
    const { input_tokens: input, output_tokens: output } = message.usage;
    return { text: message.content[0].text, input, output };
  });
  await call("InvokeModelWithResponseStream", true, async () => {
    const response = await client.send(new runtime.InvokeModelWithResponseStreamCommand(native));
    const row = { text: "", events: 0 };
    for await (const event of response.body) {
      const chunk = text(event.chunk.bytes);
      row.events += 1;
      row.text += chunk.delta?.text ?? "";
      const metrics = chunk["amazon-bedrock-invocationMetrics"];
      if (metrics) Object.assign(row, { input: metrics.inputTokenCount, output: metrics.outputTokenCount });
    }
    return row;
  });
  await call("refused", false, () => converse(denied));
  client.destroy();
}

async function anthropic() {
  const { AnthropicBedrock } = require("@anthropic-ai/bedrock-sdk");
  const client = new AnthropicBedrock({ maxRetries: 0 });
  const call = rows("Anthropic's SDK for JavaScript", version("@anthropic-ai/bedrock-sdk"));
  const message = { model, max_tokens: 100, messages: [{ role: "user", content: question }] };
  const of = ({ content, usage }) => ({
    text: content[0].text,
    input: usage.input_tokens,
    output: usage.output_tokens,
  });
  await call("messages.create", false, async () => of(await client.messages.create(message)));
  await call("messages.stream", true, async () => {
    const stream = client.messages.stream(message);
    let events = 0;
    for await (const _ of stream) events += 1;
    return { ...of(await stream.finalMessage()), events };
  });
  await call("refused", false, async () => of(await client.messages.create({ ...message, model: denied })));
}

const clients = { h2c: () => sdk(false), http1: () => sdk(true), anthropic };
await clients[process.argv[2]]();
