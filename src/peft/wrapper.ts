/** What stands in a module's place with an adapter's own values: copies of it (modulesToSave), or rows of its table. */
import { Module } from "../nn/module.js";
import { StateError } from "../runtime/errors.js";

/** A module in another's place, of whose adapters the first active one acts. */
export abstract class Wrapper extends Module {
  /** @internal */ static override readonly className: string = "Wrapper";
  activeAdapters: readonly string[] = [];
  disabled = false;

  abstract has(adapterName: string): boolean;
  /** Frees what an adapter has, if it is here. */
  abstract remove(adapterName: string): void;

  /** What acts now: with any other value in it, something else does. */
  protected abstract get acting(): readonly unknown[];
  /** What has become of it then, for errors. */
  protected abstract readonly gone: string;

  /** Makes this the module it was without adapters; returns what takes that back. */
  disable(): () => void {
    const { disabled } = this;
    this.disabled = true;
    return () => {
      this.disabled = disabled;
    };
  }

  /** Notes what acts, see `extentOf`. */
  hold(where: string): () => () => void {
    const { activeAdapters, disabled, acting } = this;
    return () => {
      const before = [this.activeAdapters, this.disabled] as const;
      [this.activeAdapters, this.disabled] = [activeAdapters, disabled];
      const undo = (): void => {
        [this.activeAdapters, this.disabled] = before;
      };
      if (this.acting.every((part, i) => part === acting[i])) return undo;
      undo();
      throw new StateError(`${where}: ${this.gone} since ${where}() was called; call it anew.`);
    };
  }
}
