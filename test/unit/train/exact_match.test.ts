/** Exact match: what a model answers greedily, beside what it should; the same whatever is asked beside it. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { ArgumentError, type data, init, memoryStats, models, peft, train } from "../../../src/index.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();
const { model, tokenizer } = models.loadModel(fileURLToPath(new URL("models/base", ROOT)));
const PROMPTS = ["My fellow citizens", "The", "In the last year the Congress of the United States has", "We are"];

/** What the model writes: ended where it writes `end`, of which the first place in each text is told. */
function continuation(prompt: number[], tokens: number): number[] {
  return [...models.generate(model, prompt, { maxNewTokens: tokens, temperature: 0 })];
}
const prompts = PROMPTS.map((text) => tokenizer.encode(text));
const texts = prompts.map((prompt) => continuation(prompt, 12));
/** Ends for this test: the last token of each continuation, so that each ends there or before. */
const eosTokenIds = [...new Set(texts.map((ids) => ids.at(-1)!))];
const answers: data.Answer[] = prompts.map((prompt, i) => {
  const end = texts[i]!.findIndex((id) => eosTokenIds.includes(id));
  return { where: `r:${i}`, prompt: Int32Array.from(prompt), reference: Int32Array.from(texts[i]!.slice(0, end)) };
});

test("what the model says greedily is exact, in any batch", () => {
  const before = memoryStats().liveBytes;
  for (const batch of [1, 3, 8]) {
    const { exact, given } = train.exactMatch(model, answers, { eosTokenIds, batch });
    assert.equal(exact, answers.length);
    assert.deepEqual(
      given.map(({ ids }) => ids),
      answers.map(({ reference }) => [...reference]),
    );
  }
  assert.equal(memoryStats().liveBytes, before);
});

test("another token, one more, one less, or no end is not exact", () => {
  const first = answers.reduce((a, b) => (b.reference.length > a.reference.length ? b : a));
  const { reference } = first;
  assert.ok(reference.length > 2);
  const others = {
    changed: reference.map((id, i) => (i === 1 ? (id + 1) % 1024 : id)),
    longer: Int32Array.of(...reference, 5),
    shorter: reference.slice(0, -1),
    empty: reference.slice(0, 0),
  };
  const asked = Object.values(others).map((other) => ({ ...first, reference: other }));
  const { exact, given } = train.exactMatch(model, [...asked, first], { eosTokenIds });
  assert.equal(exact, 1);
  assert.deepEqual(
    given.map(({ isExact }) => isExact),
    [false, false, false, false, true],
  );
  // Of each answer no more is kept than shows that it is another.
  assert.deepEqual(
    given.map(({ ids }) => ids.length),
    [reference.length, reference.length, reference.length, 1, reference.length],
  );
  const endless = train.exactMatch(model, [first], { eosTokenIds: [1023] });
  assert.deepEqual([endless.exact, endless.given[0]!.ids.length], [0, reference.length + 1]);
});

test("progress goes up to the end, and a model with an adapter answers with it", () => {
  const told: number[][] = [];
  const lora = peft.getLoraModel(model, { r: 4, targetModules: "all-linear", initLoraWeights: false, loraAlpha: 400 });
  lora.train();
  const { exact } = train.exactMatch(lora, answers, {
    eosTokenIds,
    batch: 2,
    onProgress: (...done) => {
      told.push(done);
    },
  });
  assert.ok(exact < answers.length, "such an adapter changes what is said");
  assert.equal(lora.model.training, false);
  const all = answers.reduce((n, { reference }) => n + reference.length + 1, 0);
  assert.deepEqual(told.at(-1), [all, all]);
  assert.ok(told.every(([done], i) => i === 0 || done! >= told[i - 1]![0]!));
  assert.equal(
    lora.disableAdapter(() => train.exactMatch(lora, answers, { eosTokenIds }).exact),
    answers.length,
  );
  lora.unload();
});

test("nothing to answer is nothing exact; what is no option, no model or no end is refused by name", () => {
  assert.deepEqual(train.exactMatch(model, [], { eosTokenIds }), { exact: 0, given: [] });
  const refused: [() => unknown, ...string[]][] = [
    [() => train.exactMatch(model, answers, { eosTokenIds: [] }), "eosTokenIds"],
    [() => train.exactMatch(model, answers, undefined as never), "eosTokenIds"],
    [() => train.exactMatch(model, answers, { eosTokenIds, batch: 0 }), "batch"],
    [() => train.exactMatch(model, "all" as never, { eosTokenIds }), "answers"],
    [() => train.exactMatch(model, answers, { eosTokenIds, beams: 4 } as never), "beams"],
    [() => train.exactMatch({} as never, answers, { eosTokenIds }), "generateBatch", "model"],
    [() => train.exactMatch(model, [{} as never], { eosTokenIds }), "exactMatch", "answers[0]"],
  ];
  for (const [fn, ...words] of refused) assert.throws(fn, says(ArgumentError, ...words));
});

test.run();
