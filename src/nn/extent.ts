/**
 * What acts in a model at a moment: which adapters, on which rows. Values that are computed later (the tokens of
 * `generate`) are computed on the terms of the moment at which they were asked for.
 */
import type { Module } from "./module.js";

/** A module that computes with what can be switched. */
interface Switched extends Module {
  /**
   * Notes what acts now; what it returns lets that act again, on these items of a batch of so many (default: on all),
   * and returns what ends it.
   * @throws StateError if it is gone; ShapeError if what acts is for a batch of another size
   */
  hold(where: string): (items?: readonly number[], batch?: number) => () => void;
  /** Lets nothing act; returns what takes that back. */
  disable(): () => void;
}

let changes = 0;

/** Says that what acts in some model has changed. */
export function changed(): void {
  changes++;
}

/**
 * What acts in a model now: runs functions so, whatever acts by then; where only some items of a batch are left, or
 * rows of them, with what acted on those.
 * @returns throws StateError, when called, if what acted is gone: deleted, replaced, merged or unmerged
 */
export function extentOf(
  where: string,
  model: Module,
): <T>(fn: () => T, items?: readonly number[], batch?: number) => T {
  const held = new Map(switchedIn(model).map((module) => [module, module.hold(where)]));
  const noted = changes;
  return (fn, items, batch) => {
    if (changes === noted && (!items || held.size === 0)) return fn();
    const undo: (() => void)[] = [];
    try {
      // Adapters that a layer got since then must not act.
      for (const module of switchedIn(model)) if (!held.has(module)) undo.push(module.disable());
      for (const enter of held.values()) undo.push(enter(items, batch));
      return fn();
    } finally {
      for (const leave of undo.reverse()) leave();
    }
  };
}

function switchedIn(model: Module): Switched[] {
  return [...model.namedModules()].flatMap(([, module]) => ("hold" in module ? [module as Switched] : []));
}
