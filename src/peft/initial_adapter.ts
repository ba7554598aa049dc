/** LoraModel.addAdapter: an adapter that starts as its config says. */
import type { LoraConfig } from "../io/peft/config.js";
import type { Adapters } from "./adapters.js";
import { LoraLinear } from "./linear.js";
import { changesBaseWeight } from "./new_adapter.js";
import { checkEntries } from "./targets.js";

const WHERE = "addAdapter";

export function addInitialised(adapters: Adapters, adapterName: string, config: LoraConfig): void {
  adapters.withHead(() => {
    checkEntries(WHERE, adapters.model, config);
    adapters.inject(WHERE, adapterName, config, {
      factors({ path, layer, scaling }, loraA, loraB) {
        const weight = layer instanceof LoraLinear && changesBaseWeight(config) ? layer.weight.data.slice() : null;
        layer.initFactors(config.initLoraWeights, `${WHERE}: ${path}`, loraA, loraB, scaling);
        return { initial: weight && { loraA: loraA.data.slice(), loraB: loraB.data.slice(), weight } };
      },
    });
  });
}
