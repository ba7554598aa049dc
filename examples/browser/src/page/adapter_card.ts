/** What training has learned, to download; and adapters of another day, to upload. */
import { fileName, number } from "../format";
import { Refusal } from "../refusal";
import type { Adapter } from "../worker/run";
import { fromFiles, toLlamaZip, toZip } from "./adapter_files";
import { $, announce, show } from "./dom";
import { acceptFiles } from "./drop";
import type { Host } from "./host";
import type { Stage } from "./stage";

/** An adapter is read in a moment; one that takes longer is meant to. */
const UPLOAD_PATIENCE_S = 15;

export class AdapterCard {
  #uploading = false;
  /** Hears of an adapter of that name. */
  onUpload: (name: string) => void = () => {};

  constructor(
    stage: Stage,
    private readonly host: Host,
  ) {
    const upload = $<HTMLInputElement>("upload");
    acceptFiles(stage, upload, $("upload-drop"), (files) => this.#upload(files));
    stage.follow(() => {
      upload.disabled = !stage.is("idle", "paused", "done");
    });
  }

  /**
   * @param best the step that the adapter is of
   * @param last the last step: its adapter is offered, too, if that is another one
   */
  async offerTrained(best: number, last: number): Promise<void> {
    this.#offer("download", toZip(await this.host.call((studio) => studio.adapter("best"))));
    this.#offer(
      "download-last",
      best === last ? null : toZip(await this.host.call((studio) => studio.adapter("last"))),
    );
    const exported = await this.host.call((studio) => studio.exported());
    this.#offer("download-llama", exported && toLlamaZip(exported));
    show("download", best === last ? "Download the adapter" : `Download the best adapter (step ${number(best)})`);
    show("download-last", `Download the last (step ${number(last)})`);
  }

  withdraw(): void {
    this.#offer("download", null);
    this.#offer("download-last", null);
    this.#offer("download-llama", null);
  }

  #offer(id: string, zip: Blob | null): void {
    const link = $<HTMLAnchorElement>(id);
    if (link.href) URL.revokeObjectURL(link.href);
    link.hidden = !zip;
    if (zip) link.href = URL.createObjectURL(zip);
    else link.removeAttribute("href");
  }

  async #upload(files: readonly File[]): Promise<void> {
    if (this.#uploading)
      throw new Refusal("upload", "The adapter before it is still being read. Try again in a moment.");
    this.#uploading = true;
    try {
      await this.#take(files);
    } finally {
      this.#uploading = false;
    }
  }

  async #take(files: readonly File[]): Promise<void> {
    const name = files.length === 1 ? fileName(files[0]!.name) : "the two files";
    const adapter: Adapter = await fromFiles(files);
    try {
      await this.host.call((studio) => studio.upload(adapter), UPLOAD_PATIENCE_S);
    } catch (error) {
      if ((error as Error).name === "WorkerLost")
        throw Object.assign(error as Error, {
          message: `${name} took longer than ${UPLOAD_PATIENCE_S} s to read and was given up`,
        });
      throw error;
    }
    this.onUpload(name);
    const sentence = `Loaded ${name}: talk to it below.`;
    show("upload-hint", sentence);
    announce(sentence);
  }
}
