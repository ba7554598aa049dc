/** What a model says: the rest of a text, or its turn of a conversation. */
import { models } from "wasm-lora";
import { Refusal } from "../refusal";
import type { Said, Written } from "../views";
import type { Base, Model } from "./base";

export interface Drawing {
  seed: number;
  temperature: number;
}

/** Tokens that are drawn, at most. */
const [MOST_OF_A_TEXT, MOST_OF_AN_ANSWER] = [100, 200];

/**
 * The text so far, again and again: with its beginning where it goes on with one, the answer alone where it answers.
 * @throws Refusal if what was said is nothing, or too long
 */
export function* writing(base: Base, model: Model, said: Said, drawing: Drawing): Generator<string, Written> {
  const { tokenizer, eosTokenIds } = base;
  const isChat = "messages" in said;
  const ids = isChat
    ? tokenizer.encode(rendered(base, said.messages), { addSpecialTokens: false })
    : tokenizer.encode(said.text);
  const maxNewTokens = isChat ? MOST_OF_AN_ANSWER : MOST_OF_A_TEXT;
  const room = model.config.maxPositionEmbeddings - maxNewTokens;
  if (ids.length === 0) throw new Refusal("prompt", "Write a word or two for the model to begin with.");
  if (ids.length > room) {
    throw new Refusal(
      "prompt",
      isChat
        ? `The conversation is ${ids.length} tokens long (pieces of words); at most ${room} fit. Begin anew.`
        : `The beginning is ${ids.length} tokens long (pieces of words); at most ${room} fit. Shorten it.`,
    );
  }
  model.eval();
  const drawn = models.generate(model, ids, { maxNewTokens, ...drawing, stopToken: eosTokenIds });
  let count = 0;
  function* tokens(): Generator<number> {
    if (!isChat) yield* ids;
    for (const id of drawn) {
      count++;
      yield id;
    }
  }
  let text = "";
  for (const piece of tokenizer.decodeStream(tokens(), { skipSpecialTokens: true })) yield (text += piece);
  return { text, isWhole: count < maxNewTokens };
}

/** Each piece of it under `act`, such as without an adapter: between them the model is as it was. */
export function* within(act: <T>(fn: () => T) => T, pieces: Generator<string, Written>): Generator<string, Written> {
  try {
    for (;;) {
      const next = act(() => pieces.next());
      if (next.done) return next.value;
      yield next.value;
    }
  } finally {
    endEarly(pieces);
  }
}

/** Frees what is kept of a text that nobody wants more of; where it has ended, nothing is. */
export function endEarly(pieces: Generator<string, Written>): void {
  pieces.return({ text: "", isWhole: false });
}

/** All of it at once. @param onText gets the text as it grows */
export function write(base: Base, model: Model, said: Said, drawing: Drawing, onText: (text: string) => void): Written {
  const pieces = writing(base, model, said, drawing);
  for (;;) {
    const next = pieces.next();
    if (next.done) return next.value;
    onText(next.value);
  }
}

function rendered({ tokenizer, name }: Base, messages: Extract<Said, { messages: unknown }>["messages"]): string {
  try {
    return tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
  } catch (error) {
    if ((error as Error).name !== "FormatError") throw error;
    throw new Refusal("prompt", `The template of ${name} does not take this: ${(error as Error).message}`);
  }
}
