/** The model: which it is, and another in its place. */
import { number, printable } from "../format";
import { Refusal } from "../refusal";
import type { Loading, ModelView, Opened } from "../views";
import type { Source } from "../worker/base";
import { $, announce, show } from "./dom";
import { acceptFiles } from "./drop";
import type { Host } from "./host";
import type { Stage } from "./stage";

export class ModelCard {
  readonly #hubName = $<HTMLInputElement>("hub-name");
  readonly #folder = $<HTMLInputElement>("folder");
  readonly #gguf = $<HTMLInputElement>("gguf");
  /** What stands below the field. */
  readonly #hint = $("model-hint").textContent!;
  /** The model that the next run begins with. */
  view: ModelView | null = null;
  /** Gets what came with a model that was chosen, such as a run that waited for it. */
  onChosen: (opened: Opened) => Promise<void> = async () => {};

  constructor(
    private readonly stage: Stage,
    private readonly host: Host,
  ) {
    this.#folder.addEventListener("change", () => {
      const files = [...(this.#folder.files ?? [])];
      this.#folder.value = "";
      if (files.length > 0) this.#take(() => ({ kind: "folder", files }));
    });
    acceptFiles(stage, this.#gguf, $("model-form"), async (files) =>
      this.#take(() => {
        if (!files.every(({ name }) => /\.gguf$/i.test(name)))
          throw new Refusal("model", "Drop a GGUF file here; a folder is opened by its button.");
        return { kind: "folder", files: [...files] };
      }),
    );
    $("model-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take(() => {
        const name = this.#hubName.value.trim();
        if (!/^[\w.-]+\/[\w.-]+(@[\w./-]+)?(:[\w.+/ -]+)?$/.test(name))
          throw new Refusal("model", "Enter the name of a model on the hub: its owner, a slash and its name.");
        return { kind: "hub", name };
      });
    });
    const useEmbedded = $<HTMLButtonElement>("use-embedded");
    useEmbedded.addEventListener("click", () => this.#take(() => ({ kind: "embedded" })));
    stage.follow(() => {
      const choosable = stage.is("idle", "done", "held");
      $<HTMLButtonElement>("load-model").disabled = this.#hubName.disabled = !choosable;
      this.#folder.disabled = this.#gguf.disabled = !choosable;
      useEmbedded.disabled = !choosable || this.view === null || this.view.isEmbedded;
    });
  }

  show(view: ModelView): void {
    this.view = view;
    show("model-name", printable(view.name));
    const threads = view.threads > 1 ? `, computed on ${view.threads} threads` : "";
    show("model-size", `, ${number(view.weights)} weights${threads}`);
  }

  showLoading({ done, share }: Loading): void {
    const bar = $<HTMLProgressElement>("model-progress");
    bar.hidden = false;
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
    show("model-hint", done);
  }

  endLoading(): void {
    $("model-progress").hidden = true;
    show("model-hint", this.#hint);
  }

  /** @param read gives the source, or refuses what the visitor entered */
  #take(read: () => Source): void {
    const before = this.stage.phase;
    if (!this.stage.is("idle", "done", "held")) return;
    void this.stage.attempt(
      () => before,
      async () => {
        const source = read();
        this.stage.enter("choosing");
        announce("Loading the model.");
        this.showLoading({ done: "Looking for it…", share: null });
        const opened = await this.host
          .call((studio, live) =>
            studio.choose(
              source,
              live((loading: Loading) => this.showLoading(loading)),
            ),
          )
          .finally(() => this.endLoading());
        announce(`The model is ${printable(opened.model.name)}.`);
        await this.onChosen(opened);
        if (this.stage.is("choosing")) this.stage.enter(before);
      },
    );
  }
}
