/** The page: its parts, put together. What each does is in page/; all work is the worker's. */
import { keepDraft, keepNow } from "./draft";
import { AdapterCard } from "./page/adapter_card";
import { ChatCard } from "./page/chat_card";
import { DataCard } from "./page/data_card";
import { Host } from "./page/host";
import { ModelCard } from "./page/model_card";
import { Recovery } from "./page/recovery";
import { SamplesCard } from "./page/samples_card";
import { Session } from "./page/session";
import { Stage, tell } from "./page/stage";
import { TrainingCard } from "./page/training_card";

const stage = new Stage();
const host = new Host((message) => {
  stage.enter("broken");
  tell(new Error(message));
});
const model = new ModelCard(stage, host);
const data = new DataCard(stage, host);
const samples = new SamplesCard();
const adapters = new AdapterCard(stage, host);
const chat = new ChatCard(stage, host);
const training = new TrainingCard(stage, host, data, samples, adapters, chat, rememberDraft);
const session = new Session(stage, host, model, data, training, chat);
const openAgain = (): Promise<void> => {
  stage.enter("loading");
  host.start();
  return session.open();
};
session.recovery = new Recovery(stage, host, (run) => session.continueWith(run, false), openAgain);

data.onChange = rememberDraft;
data.onRows = (rows, isNew) => {
  training.setRows(rows);
  if (!rows || !isNew) return;
  training.prompt = rows.question.prompt;
  chat.suggest(rows.question);
};
adapters.onUpload = (name) => chat.offer("uploaded", true, `uploaded (${name})`);
training.rank.addEventListener("input", () => training.describeRank(model.view));

function rememberDraft(): void {
  session.touched = true;
  keepDraft({ text: data.text.value, ...training.fields });
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "hidden") return;
  keepNow();
  // Where another tab has saved, training says so itself.
  if (stage.is("training")) void host.call((studio) => studio.save()).catch(() => {});
});

void stage.attempt(
  () => "broken",
  () => session.open(),
);
