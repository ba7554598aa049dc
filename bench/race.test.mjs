/** The races' own checks: every round is a burst of its own. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { race } from "./race.mjs";

const EFFORT = { rounds: 3, burstMs: 4, warmUpMs: 1, limitMs: 1_000, patienceMs: 100 };
const spin = (until) => {
  while (process.cpuUsage().user + process.cpuUsage().system < until);
};
/** A call takes `ms` milliseconds, which a test may change between bursts. */
function contestant(name) {
  const it = {
    name,
    calls: 0,
    ms: 1,
    run() {
      it.calls++;
      const { user, system } = process.cpuUsage();
      spin(user + system + 1000 * it.ms);
    },
  };
  return it;
}

test("a contestant runs in every round, and its times are those of each", async () => {
  const [one, two] = [contestant("one"), contestant("two")];
  let bursts = 0;
  // After both have run in a round, both become slower.
  const times = await race([one, two], EFFORT, () => {
    if (++bursts % 2 === 0) for (const each of [one, two]) each.ms++;
    return false;
  });
  for (const each of [one, two]) {
    assert.equal(times[each.name].length, 3);
    times[each.name].forEach((time, round) => {
      assert(time >= 1 + round && time < 1.9 + round, `${each.name}, round ${round}: ${time} ms`);
    });
  }
});

test("a burst that was disturbed runs once more, and its time counts, until patience has come to an end", async () => {
  const one = contestant("one");
  let bursts = 0;
  const { one: times } = await race([one], { ...EFFORT, rounds: 1 }, () => {
    one.ms = 2;
    return ++bursts === 1;
  });
  assert.equal(bursts, 2);
  assert(times[0] >= 2, `${times[0]} ms`);

  const always = contestant("always");
  const [before, start] = [always.calls, performance.now()];
  await race([always], EFFORT, () => true);
  // 3 rounds of 4 ms, and 100 ms of patience in bursts of 4 ms: each takes its time.
  assert(always.calls - before > 50, `${always.calls - before} calls`);
  assert(performance.now() - start < 2_000);
});

test.run();
