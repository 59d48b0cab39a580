// What every client here asks: the server's address and model come from the runner.
export const URL_ = process.env.SUBLLM_URL;
export const MODEL = process.env.SUBLLM_MODEL;
export const NO_MODEL = "no-such-model";
export const PROMPT = "def is_prime(n: int) -> bool:\n    ";
export const PREFIX = "def add(a, b):\n    total = ";
export const SUFFIX = "\n    return total\n";
export const QUESTION = "Name one sorting algorithm.";
export const TOKENS = 24;

// A form that every model can be held to in a few tokens.
export const SIZES = {
  type: "object",
  properties: { size: { enum: ["small", "large"] } },
  required: ["size"],
  additionalProperties: false,
};

export async function collect(pieces, text) {
  let all = "";
  for await (const piece of pieces) all += text(piece) ?? "";
  return all;
}
