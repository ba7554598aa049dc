/**
 * Adapters where memory runs out half-way: whatever the step, an OutOfMemoryError, nothing lost and nothing changed.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, memoryStats, nn, OutOfMemoryError, peft } from "../../../src/index.js";
import { fillBut } from "../../support/memory.js";
import { ALL, assertValues, temporary, type Tiny, tiny, train, trainable, values } from "../../support/peft.js";

await init({ maximumBytes: 24 * 65536 });
new nn.Linear(1, 1).dispose();
const at = temporary();

/**
 * Runs `step` with more and more memory left, until it succeeds; `undo` takes it back.
 * @returns how often it failed
 */
function untilItFits(adapted: peft.LoraModel<Tiny>, step: () => void, undo: () => void): number {
  const before = values(adapted);
  const keys = trainable(adapted);
  const state = [adapted.adapters, adapted.activeAdapters, adapted.mergedAdapters];
  for (let room = 64, failures = 0; ; room += 192, failures++) {
    const live = memoryStats().liveBytes;
    const empty = fillBut(room);
    const full = memoryStats().liveBytes;
    let failed = false;
    try {
      step();
    } catch (e) {
      assert(e instanceof OutOfMemoryError, String(e));
      failed = true;
      assert.equal(memoryStats().liveBytes, full, `leaked with ${room} bytes left`);
    }
    empty();
    if (!failed) {
      undo();
      return failures;
    }
    assert.equal(memoryStats().liveBytes, live);
    assertValues(`${room} bytes left`, adapted, before);
    assert.deepEqual(
      [trainable(adapted), [adapted.adapters, adapted.activeAdapters, adapted.mergedAdapters]],
      [keys, state],
    );
  }
}

const FULL = { r: 2, targetModules: ["embed", "fc", "proj", "conv"], useDora: true, modulesToSave: ["norm", "head"] };

test("getLoraModel", () => {
  for (const config of [FULL, { r: 2, targetModules: ["fc", "proj", "head"], initLoraWeights: "pissa" as const }]) {
    const model = tiny();
    const before = values(model);
    const live = memoryStats().liveBytes;
    const adapted = new peft.LoraModel(model);
    assert(
      untilItFits(
        adapted,
        () => adapted.addAdapter("default", config),
        () => adapted.deleteAdapter("default"),
      ) > 4,
    );
    assertValues("deleted", model, before);
    assert.equal(memoryStats().liveBytes, live);
    model.dispose();
  }
});

test("addAdapter, loadAdapter, hotswapAdapter, addWeightedAdapter beside others", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL.slice(0, 4) }, "a");
  adapted.addAdapter("b", { r: 3, targetModules: ["fc", "conv"] });
  for (const [i, name] of ["a", "b"].entries()) train(adapted, name, i);
  const saved = peft.getLoraModel(tiny(), FULL);
  saved.savePretrained(at("full"));
  saved.dispose();
  adapted.savePretrained(at("b"), "b");
  adapted.setAdapter(["a", "b"]);
  const drop = (): void => adapted.deleteAdapter("c");
  assert(untilItFits(adapted, () => adapted.addAdapter("c", FULL), drop) > 4);
  assert(untilItFits(adapted, () => adapted.loadAdapter(at("full"), "c", { isTrainable: true }), drop) > 4);
  for (const combinationType of ["cat", "svd"] as const)
    assert(
      untilItFits(adapted, () => adapted.addWeightedAdapter(["a", "b"], [1, 2], "c", { combinationType }), drop) > 4,
    );
  assert(
    untilItFits(
      adapted,
      () => adapted.hotswapAdapter(at("full"), "b"),
      () => adapted.hotswapAdapter(at("b"), "b"),
    ) > 4,
  );
  adapted.dispose();
});

test("mergeAdapter, also where one is merged already", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL, useDora: true }, "a");
  adapted.addAdapter("b", { r: 3, targetModules: ALL });
  for (const [i, name] of ["a", "b"].entries()) train(adapted, name, i);
  assert(
    untilItFits(
      adapted,
      () => adapted.mergeAdapter(["a"]),
      () => adapted.unmergeAdapter(),
    ) > 1,
  );
  adapted.mergeAdapter(["b"]);
  assert(
    untilItFits(
      adapted,
      () => adapted.mergeAdapter(["a"]),
      () => adapted.unmergeAdapter(),
    ) > 1,
  );
  adapted.dispose();
});

test.run();
