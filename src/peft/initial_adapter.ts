/** LoraModel.addAdapter: an adapter that starts as its config says. */
import type { LoraConfig } from "../io/peft/config.js";
import type { Adapters } from "./adapters.js";
import { withTargets } from "./default_targets.js";
import { LoraLinear } from "./linear.js";
import { changesBaseWeight } from "./new_adapter.js";
import { checkEntries, withHeads } from "./targets.js";

const WHERE = "addAdapter";

export function addInitialised(adapters: Adapters, adapterName: string, given: LoraConfig): void {
  const config = withHeads(withTargets(WHERE, adapters.model, given));
  adapters.inject(WHERE, adapterName, config, {
    check: () => checkEntries(WHERE, adapters.model, config),
    factors({ path, layer, scaling }, factors) {
      const weight = layer instanceof LoraLinear && changesBaseWeight(config) ? layer.weight.stored() : null;
      layer.initFactors(config.initLoraWeights, `${WHERE}: ${path}`, factors, scaling);
      const { loraA, loraB } = factors;
      return { initial: weight && { weight, factors: { loraA: loraA.data.slice(), loraB: loraB.data.slice() } } };
    },
  });
}
