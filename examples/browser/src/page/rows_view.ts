/** A file of rows, shown: counts, lengths, what is left out, and rows as the model will see them. */
import { fileName, number, printable } from "../format";
import type { RowView, RowsView } from "../views";
import { $, show } from "./dom";
import { drawHistogram } from "./histogram";

/** Of one row; what is beyond it is as dull as it is long. */
const MOST_CHARACTERS = 4000;

export function showRows({ name, summary, preview, skipped, lossOn, question }: RowsView): void {
  show("rows-name", fileName(name));
  const choice = $<HTMLSelectElement>("loss-on");
  choice.value = lossOn;
  // Of a prompt there is one answer, of a conversation there may be many.
  choice.querySelector<HTMLOptionElement>('option[value="last"]')!.disabled = !question.isChat;
  const share = summary.tokens === 0 ? 0 : Math.round((100 * summary.scored) / summary.tokens);
  show("rows-count", number(summary.rows));
  show("rows-tokens", number(summary.tokens));
  show("rows-share", `Scored, ${share} %`);
  show("rows-scored", number(summary.scored));
  show("rows-longest", number(summary.longest));
  show("rows-truncated", number(summary.truncated));
  show("rows-skipped", number(summary.skipped));
  drawHistogram($("rows-lengths"), summary.histogram);
  show("rows-from", number(summary.shortest));
  show("rows-to", number(summary.longest));
  $("rows-preview").replaceChildren(...preview.map(rowElement));
  const left = $("rows-left");
  left.hidden = skipped.length === 0;
  show(
    "rows-left-summary",
    `Why ${summary.skipped === 1 ? "a row is" : `${number(summary.skipped)} rows are`} left out`,
  );
  const more = summary.skipped - skipped.length;
  $("rows-left-list").replaceChildren(
    ...skipped.map(({ where, reason }) => item(`${where}: ${reason}`)),
    ...(more > 0 ? [item(`and ${number(more)} more`)] : []),
  );
}

function rowElement({ where, tokens, scored, parts }: RowView): HTMLElement {
  const row = document.createElement("li");
  const head = document.createElement("p");
  head.className = "hint";
  head.textContent = `${printable(where)}: ${number(tokens)} tokens, ${number(scored)} of them scored`;
  const text = document.createElement("div");
  text.className = "seen";
  // It may be longer than its box: the keyboard scrolls it.
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `The row of ${where}`);
  let left = MOST_CHARACTERS;
  for (const part of parts) {
    if (left <= 0) break;
    const shown = part.text.length > left ? `${part.text.slice(0, left)}…` : part.text;
    left -= part.text.length;
    const element = document.createElement(part.scored ? "mark" : "span");
    element.textContent = printable(shown);
    text.append(element);
  }
  row.append(head, text);
  return row;
}

function item(text: string): HTMLElement {
  const element = document.createElement("li");
  element.textContent = printable(text);
  return element;
}
