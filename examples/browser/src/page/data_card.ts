/** What is learned: a text in a field, or the rows of a file. */
import { fileName, megabytes, number } from "../format";
import { keepFile, type DraftFile } from "../draft";
import { Refusal } from "../refusal";
import type { Loading, LossOn, RowsView } from "../views";
import rowsUrl from "../../sample.jsonl?url";
import sampleUrl from "../../sample.txt?url";
import { $, announce, show } from "./dom";
import { acceptFiles } from "./drop";
import type { Host } from "./host";
import { showRows } from "./rows_view";
import type { Stage } from "./stage";

const MOST_BYTES = 8 * 1024 * 1024;
/** Files whose lines or objects are rows; every other is a text. */
const ROWS = /\.(jsonl|ndjson|json|csv|tsv|parquet)$/i;

export class DataCard {
  readonly text = $<HTMLTextAreaElement>("text");
  readonly #file = $<HTMLInputElement>("file");
  readonly #useSample = $<HTMLButtonElement>("use-sample");
  readonly #useRows = $<HTMLButtonElement>("use-rows");
  readonly #lossOn = $<HTMLSelectElement>("loss-on");
  readonly #useText = $<HTMLButtonElement>("use-text");
  #rows: RowsView | null = null;
  #sample: string | null = null;
  /** Hears of rows that take the text's place (null: the text is back), and whether a visitor did that. */
  onRows: (rows: RowsView | null, isNew: boolean) => void = () => {};
  /** Hears of every change that a visitor made. */
  onChange: () => void = () => {};

  constructor(
    private readonly stage: Stage,
    private readonly host: Host,
  ) {
    acceptFiles(stage, this.#file, $("drop"), (files) => this.#open(files));
    this.text.addEventListener("input", () => {
      this.describe();
      this.onChange();
    });
    this.#useSample.addEventListener("click", () => stage.try(() => this.#toggleSample()));
    this.#useRows.addEventListener("click", () =>
      stage.try(async () => {
        const bytes = new Uint8Array(await (await fetchSample(rowsUrl)).arrayBuffer());
        await this.#openRows({ name: "sample.jsonl", bytes });
      }),
    );
    this.#useText.addEventListener("click", () => {
      this.showRows(null);
      keepFile(null);
      this.onChange();
      this.text.focus();
    });
    this.#lossOn.addEventListener("change", () => stage.try(() => this.scoreRows()));
    stage.follow(() => {
      const busy = stage.isRunning || stage.is("loading", "choosing", "reading");
      this.text.readOnly = stage.isRunning;
      this.#file.disabled = busy;
      this.#useSample.disabled = stage.isRunning;
      this.#lossOn.disabled = this.#useText.disabled = this.#useRows.disabled = busy;
    });
  }

  /** null: a text is learned. */
  get rows(): RowsView | null {
    return this.#rows;
  }

  fill(text: string): void {
    this.text.value = text;
    this.describe();
  }

  showRows(rows: RowsView | null, isNew = false): void {
    this.#rows = rows;
    $("text-part").hidden = rows !== null;
    $("rows-part").hidden = rows === null;
    this.#useSample.hidden = this.#useRows.hidden = $("text-hint").hidden = rows !== null;
    if (rows) showRows(rows);
    this.onRows(rows, isNew);
  }

  describe(): void {
    const { value } = this.text;
    const isSample = value !== "" && value === this.#sample;
    const advice = isSample ? ": a sample. Put your own text in its place, or try with this." : "";
    show(
      "text-hint",
      value
        ? `${number(value.length)} characters${advice}`
        : "A few pages are enough. Rows are JSONL, JSON, CSV or Parquet.",
    );
    this.#useSample.textContent = isSample ? "Clear the text" : "Use a sample text";
  }

  async loadSample(): Promise<string> {
    return (this.#sample = await (await fetchSample(sampleUrl)).text());
  }

  /**
   * Reads a file of rows for the model that is there.
   * @param isNew whether a visitor has just opened it
   */
  readRows({ name, bytes }: DraftFile, isNew: boolean): Promise<void> {
    return this.#reading(async () => {
      this.showRows(await this.host.call((studio, live) => studio.readRows(bytes, name, live(tellReading))), isNew);
    });
  }

  /** The same rows, for another model, or with another choice of what is scored. */
  scoreRows(): Promise<void> {
    const lossOn = this.#lossOn.value as LossOn;
    return this.#reading(async () => {
      try {
        this.showRows(await this.host.call((studio, live) => studio.scoreRows(lossOn, live(tellReading))));
      } finally {
        this.#lossOn.value = this.#rows?.lossOn ?? "answers";
      }
    });
  }

  async #reading(work: () => Promise<void>): Promise<void> {
    const before = this.stage.phase;
    this.stage.enter("reading");
    try {
      await work();
    } finally {
      show("file-hint", "");
      if (this.stage.is("reading")) this.stage.enter(before);
    }
  }

  async #open(files: readonly File[]): Promise<void> {
    const [first] = files;
    if (!first) return;
    const name = fileName(first.name);
    const isRows = ROWS.test(first.name);
    if (first.size > MOST_BYTES)
      throw new Refusal(
        "file",
        `${name} has ${megabytes(first.size)}; this page takes at most ${megabytes(MOST_BYTES)}. Use a part of it` +
          `${isRows ? ", or the command line" : ""}.`,
      );
    const buffer = await first.arrayBuffer().catch((error: Error) => {
      throw new Refusal("file", `${name} could not be read (${error.message}). Choose it again.`);
    });
    const bytes = new Uint8Array(buffer);
    if (isRows) return this.#openRows({ name: first.name, bytes });
    const content = await this.host.call((studio) => studio.textOf(bytes, name));
    // It may have taken a while.
    if (this.text.readOnly)
      throw new Refusal("file", `${name} came too late: training has begun. Open it again afterwards.`);
    if (this.#rows) keepFile(null);
    this.showRows(null);
    this.#setText(content);
    announce(`${name} is in the text field.`);
  }

  async #openRows(rows: DraftFile): Promise<void> {
    await this.readRows(rows, true);
    keepFile(rows);
    this.onChange();
    announce(`${fileName(rows.name)} has ${number(this.#rows!.summary.rows)} rows.`);
  }

  async #toggleSample(): Promise<void> {
    if (this.text.value !== "" && this.text.value === this.#sample) {
      this.#setText("");
      this.text.focus();
      return announce("The text field is empty.");
    }
    const content = await this.loadSample();
    if (this.text.readOnly) return;
    this.#setText(content);
    announce("The sample text is in the text field.");
  }

  #setText(value: string): void {
    this.text.value = value;
    this.text.scrollTop = 0;
    this.describe();
    this.onChange();
  }
}

async function fetchSample(url: string): Promise<Response> {
  const response = await fetch(url);
  if (response.ok) return response;
  throw new Refusal(
    "text",
    `The sample could not be loaded (the server answered ${response.status}). Check the connection and try again.`,
  );
}

function tellReading({ done }: Loading): void {
  show("file-hint", done);
}
