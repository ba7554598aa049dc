/** The same words to the model as it came and to the model with an adapter, answers side by side. */
import { printable } from "../format";
import { explain, Refusal } from "../refusal";
import type { ModelView, Question, Said, Who, Written } from "../views";
import type { Drawing } from "../worker/write";
import { $, announce } from "./dom";
import type { Host } from "./host";
import { isLost, type Stage } from "./stage";

interface Message {
  role: string;
  content: string;
}

/** One of the two: what was said, and where it stands. */
interface Side {
  list: HTMLElement;
  messages: Message[];
}

/** What was said and answered. */
interface Turn {
  written: Written;
  /** Makes it a part of the conversation. */
  keep: () => void;
  remove: () => void;
}

export class ChatCard {
  readonly #who = $<HTMLSelectElement>("who");
  readonly #how = $<HTMLSelectElement>("how");
  readonly #seed = $<HTMLInputElement>("seed");
  readonly #temperature = $<HTMLInputElement>("temperature");
  readonly #system = $<HTMLTextAreaElement>("system");
  readonly #message = $<HTMLTextAreaElement>("message");
  readonly #send = $<HTMLButtonElement>("send");
  readonly #clear = $<HTMLButtonElement>("clear");
  readonly #base: Side = { list: $("talk-base"), messages: [] };
  readonly #adapted: Side = { list: $("talk-adapted"), messages: [] };
  #writing = false;
  #stopWanted = false;

  constructor(
    private readonly stage: Stage,
    private readonly host: Host,
  ) {
    $("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#writing) this.#stop();
      else if (!this.#send.disabled) stage.try(() => this.#say());
    });
    // As chats have it: Enter sends, Shift and Enter begin a line.
    this.#message.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      $<HTMLFormElement>("chat-form").requestSubmit();
    });
    this.#clear.addEventListener("click", () => {
      this.clear();
      this.#message.focus();
    });
    this.#how.addEventListener("change", () => this.clear());
    this.#who.addEventListener("change", () => this.clear());
    stage.follow(() => {
      // The model is wanted for something else: what is not said yet is not said.
      if (!this.#isOpen) this.#stopWanted = true;
      this.#able();
    });
  }

  /** The adapter that is talked to; "none": there is none yet. */
  get who(): Who | "none" {
    return this.#who.value as Who | "none";
  }

  /** Another model: what was said was said to the one before. */
  setModel({ canChat }: ModelView): void {
    const chat = this.#how.querySelector<HTMLOptionElement>('option[value="chat"]')!;
    chat.disabled = !canChat;
    if (!canChat) this.#how.value = "text";
    this.clear();
  }

  /** What the data ask. */
  suggest({ isChat, system, prompt }: Question): void {
    const chat = this.#how.querySelector<HTMLOptionElement>('option[value="chat"]')!;
    this.#how.value = isChat && !chat.disabled ? "chat" : "text";
    // Rows are to be answered as they say; a text may go on in many ways.
    this.#temperature.value = "0";
    this.#system.value = system;
    this.#message.value = prompt;
    this.clear();
  }

  /** Offers an adapter to talk to, and picks it. */
  offer(name: Exclude<Who, "base">, there: boolean, label?: string): void {
    const option = this.#who.querySelector<HTMLOptionElement>(`option[value="${name}"]`)!;
    option.disabled = !there;
    if (label !== undefined) option.textContent = label;
    const before = this.who;
    if (there) this.#who.value = name;
    else if (before === name) this.#who.value = this.#first();
    if (this.who !== before) this.clear();
  }

  clear(): void {
    for (const side of [this.#base, this.#adapted]) {
      side.messages = [];
      side.list.replaceChildren();
    }
    this.#able();
  }

  get #isOpen(): boolean {
    return this.stage.is("idle", "paused", "done");
  }

  #first(): string {
    const options = [...this.#who.options];
    return options.find(({ disabled, value }) => !disabled && value !== "none")?.value ?? "none";
  }

  #able(): void {
    const isChat = this.#how.value === "chat";
    $("system-field").hidden = !isChat;
    // It stands at the beginning of a conversation.
    this.#system.disabled = this.#base.messages.length > 0;
    $("message-label").textContent = isChat ? "Your message" : "Beginning";
    this.#send.disabled = !this.#isOpen;
    this.#send.textContent = this.#writing ? "Stop" : this.who === "none" ? "Send" : "Send to both";
    this.#clear.disabled = this.#writing;
    this.#who.disabled = this.#how.disabled = this.#writing;
  }

  #stop(): void {
    this.#stopWanted = true;
    void this.host.call((studio) => studio.hush());
  }

  async #say(): Promise<void> {
    const seed = Number(this.#seed.value);
    if (!Number.isSafeInteger(seed) || seed < 0 || this.#seed.value === "")
      throw new Refusal("chat", "Enter a whole number from 0 on as the seed.");
    const temperature = Number(this.#temperature.value);
    if (!(temperature >= 0 && temperature <= 2) || this.#temperature.value === "")
      throw new Refusal("chat", "Enter a temperature from 0 (always the likeliest) to 2.");
    const drawing = { seed, temperature };
    const text = this.#message.value;
    if (!text.trim()) throw new Refusal("chat", "Write a word or two for the model to answer or to go on with.");
    const { who } = this;
    this.#writing = true;
    this.#stopWanted = false;
    this.#able();
    const turns: Turn[] = [];
    try {
      turns.push(await this.#ask("base", this.#base, text, drawing));
      if (who !== "none" && !this.#stopWanted) turns.push(await this.#ask(who, this.#adapted, text, drawing));
      // Of both or of none: what follows is said to both.
      if (this.#how.value === "chat") {
        for (const turn of turns) turn.keep();
        this.#message.value = "";
      }
      const [base, adapted] = turns.map(({ written }) => printable(written.text));
      announce(`Without an adapter: ${base}${adapted === undefined ? "" : ` With it: ${adapted}`}`);
    } catch (error) {
      for (const turn of turns) turn.remove();
      if (isLost(error)) throw error;
      // The same fault in the training form belongs to another field.
      throw new Refusal("chat", explain(error).sentence);
    } finally {
      this.#writing = false;
      this.#able();
    }
  }

  async #ask(who: Who, side: Side, text: string, drawing: Drawing): Promise<Turn> {
    const isChat = this.#how.value === "chat";
    const system = this.#system.value.trim();
    const before = side.messages.length > 0 || !system ? side.messages : [{ role: "system", content: system }];
    const messages = [...before, { role: "user", content: text }];
    const said: Said = isChat ? { messages } : { text };
    const answer = bubble("assistant", "");
    const bubbles = isChat ? [bubble("user", text), answer] : [answer];
    side.list.append(...bubbles);
    const tell = (value: string): void => {
      answer.textContent = printable(value).trimStart();
      side.list.scrollTop = side.list.scrollHeight;
    };
    const remove = (): void => {
      for (const element of bubbles) element.remove();
    };
    try {
      const written = await this.host.call((studio, live) => studio.answer(who, said, drawing, live(tell)));
      tell(written.text);
      answer.classList.toggle("whole", written.isWhole);
      const keep = (): void => {
        side.messages = [...messages, { role: "assistant", content: written.text }];
      };
      return { written, keep, remove };
    } catch (error) {
      remove();
      throw error;
    }
  }
}

function bubble(role: string, text: string): HTMLElement {
  const element = document.createElement("li");
  element.className = role;
  element.textContent = printable(text);
  return element;
}
