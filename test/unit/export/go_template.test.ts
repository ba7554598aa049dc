/** Chat templates as Modelfiles have them. Expected: what Ollama's library has for these families. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data } from "../../../src/index.js";
import { goTemplateOf } from "../../../src/export/go_template.js";
import { ROOT } from "../../support/root.js";

/** A tokenizer that has nothing but a template and names of tokens. */
function tokenizerOf(source: string | null, eos = "</s>"): data.Tokenizer {
  const model = { type: "WordLevel", vocab: { "<s>": 0, [eos]: 1 }, unk_token: "<s>" };
  return new data.Tokenizer({ model }, { bos_token: "<s>", eos_token: eos, chat_template: source });
}
const fixture = (name: string): string => readFileSync(new URL(`test/fixtures/chat/${name}.jinja`, ROOT), "utf8");

const EXPECTED: Record<string, [source: string, eos: string, text: string, stops: string[], system?: string]> = {
  ChatML: [
    fixture("chatml"),
    "<|im_end|>",
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}" +
      "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}" +
      "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
    ["<|im_end|>"],
  ],
  "Llama 3's headers": [
    fixture("headers"),
    "<|eot_id|>",
    "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}" +
      "{{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}" +
      "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>",
    ["<|eot_id|>"],
  ],
  "Gemma's turns, the system's words in the user's": [
    fixture("turns"),
    "<eos>",
    "{{ if .Prompt }}<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}" +
      "{{ .Prompt }}<end_of_turn>\n{{ end }}" +
      "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n",
    ["<end_of_turn>", "<eos>"],
  ],
  "Phi's, which ends a text with eos": [
    fixture("phi"),
    "<|endoftext|>",
    "{{ if .System }}<|system|>\n{{ .System }}<|end|>\n{{ end }}{{ if .Prompt }}<|user|>\n{{ .Prompt }}{{ end }}" +
      "<|end|>\n<|assistant|>\n{{ .Response }}<|end|>\n",
    ["<|end|>", "<|endoftext|>"],
  ],
  "Qwen's, with words of its own where the system says none": [
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}{% endif %}" +
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}" +
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "<|im_end|>",
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}" +
      "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}" +
      "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
    ["<|im_end|>"],
    "You are kind.",
  ],
  "one that takes no system": [
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}" +
      "{{ '[' + m.role + ']' + m.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    "</s>",
    "{{ if .Prompt }}[user]{{ .Prompt }}\n{{ end }}[assistant]{{ .Response }}\n",
    ["</s>"],
  ],
};

for (const [name, [source, eos, text, stops, system]] of Object.entries(EXPECTED))
  test(name, () => {
    assert.deepEqual(goTemplateOf(tokenizerOf(source, eos)), { text, stops, system: system ?? null });
  });

test("the embedded base's own", () => {
  const json = JSON.parse(readFileSync(new URL("models/base/tokenizer.json", ROOT), "utf8"));
  const config = JSON.parse(readFileSync(new URL("models/base/tokenizer_config.json", ROOT), "utf8"));
  const { text, stops } = goTemplateOf(new data.Tokenizer(json, config))!;
  assert.equal(
    text,
    "{{ if .System }}{{ .System }}\n\n{{ end }}{{ if .Prompt }}Q: {{ .Prompt }}\n{{ end }}" +
      "A:\n{{ .Response }}<|endoftext|>",
  );
  assert.deepEqual(stops, ["<|endoftext|>"]);
});

test("what Ollama's form cannot say is told to be so", () => {
  assert.equal(goTemplateOf(tokenizerOf(null)), null);
  // An answer of before stands otherwise than one that is to come.
  assert.equal(goTemplateOf(tokenizerOf(fixture("instructions"))), null);
  // It counts turns.
  assert.equal(
    goTemplateOf(tokenizerOf("{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m.content }}\n{% endfor %}")),
    null,
  );
  // Go's own brackets.
  assert.equal(goTemplateOf(tokenizerOf("{% for m in messages %}{{ '{{' + m.content + '}}' }}{% endfor %}")), null);
  assert.equal(goTemplateOf(tokenizerOf("{{ raise_exception('no') }}")), null);
});

test.run();
