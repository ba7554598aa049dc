/** How rows of data are read: one list of options for finetune, inspect and eval. A template's are generate's, too. */
import { Option } from "commander";
import { asObject } from "../io/json.js";
import { BOOLEAN, integerFrom, rule, type Rule } from "../train/settings.js";
import { asTyped, filled, fromOne, oneOf, optional, pairs, path, PATH } from "./option_values.js";

const FORMATS = ["auto", "text", "messages", "completion", "alpaca", "sharegpt", "tokens"] as const;
const LOSS_ON = ["completion", "assistant", "last", "all"] as const;

/** Of a template, as commander names what was given. */
export interface TemplateCommand {
  template?: string | undefined;
  templateArg: Record<string, unknown>;
  date?: string | undefined;
}

/** Of rows, too. */
export interface DataCommand extends TemplateCommand {
  format: (typeof FORMATS)[number];
  feature: Record<string, string>;
  lossOn?: (typeof LOSS_ON)[number] | undefined;
  maxLength: number;
  skipUnusable?: boolean | undefined;
}

/** How a chat becomes text. */
export interface TemplateSettings {
  /** A file with a template in the model's place. */
  template?: string | undefined;
  /** Variables that the template has beside its own. */
  templateArgs: Record<string, unknown>;
  /** YYYY-MM-DD, for a template that asks for today. */
  date?: string | undefined;
}

/** How rows become tokens. */
export interface ReadingSettings extends TemplateSettings {
  format: DataCommand["format"];
  /** The names that fields have in the files, by their names here. */
  features: Record<string, string>;
  lossOn?: DataCommand["lossOn"] | undefined;
  maxLength: number;
  skipUnusable: boolean;
}

const DATE = rule<string>("a day as 2024-07-26", (text) => {
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)$/.exec(text) ?? [];
  if (year === undefined) return false;
  const date = new Date(`${text}T00:00:00Z`);
  return date.getUTCMonth() + 1 === Number(month) && date.getUTCDate() === Number(day);
});

/** A template's own variables are texts, numbers, true and false, lists: as JSON writes them, and else a text. */
function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What a run's checkpoint may say of them. */
export const DATA_RULES: { readonly [K in keyof Required<DataCommand>]: Rule<DataCommand[K]> } = {
  format: oneOf(FORMATS),
  feature: rule(
    "an object of texts",
    (v) => asObject(v) !== undefined && Object.values(v).every((field) => typeof field === "string"),
  ),
  lossOn: optional(oneOf(LOSS_ON)),
  maxLength: integerFrom(1),
  skipUnusable: optional(BOOLEAN),
  template: optional(PATH),
  templateArg: rule("an object", (v) => asObject(v) !== undefined),
  date: optional(DATE),
};

/** What they are where nothing is said. */
export const DATA_DEFAULTS = {
  format: "auto",
  feature: {},
  maxLength: 1024,
  skipUnusable: false,
  templateArg: {},
} satisfies DataCommand;

/** How a chat becomes text: `--template`, `--template-arg`, `--date`. */
export function templateOptions(): Option[] {
  return [
    new Option("--template <file>", "chat template (Jinja) to use instead of the model's own").argParser(path),
    new Option("--template-arg <name=value>", "variable for the template, as enable_thinking=false; may be given again")
      .argParser(pairs("name=value", json))
      .default(DATA_DEFAULTS.templateArg, "none"),
    new Option(
      "--date <YYYY-MM-DD>",
      "day that a template writes as today's; without it templates find no date, so that data are the same tomorrow",
    ).argParser(asTyped(DATE)),
  ];
}

/** How rows become tokens. */
export function dataOptions(): Option[] {
  return [
    new Option("--format <kind>", `what rows are: ${FORMATS.join(", ")}`)
      .argParser(asTyped(DATA_RULES.format))
      .default(DATA_DEFAULTS.format),
    new Option(
      "--feature <name=field>",
      "field of the file that holds a feature, as prompt=question; may be given again",
    )
      .argParser(pairs("name=field, as prompt=question", filled))
      .default(DATA_DEFAULTS.feature, "none"),
    new Option(
      "--loss-on <part>",
      `what is scored: ${LOSS_ON.join(", ")} (default: completions, each answer of an assistant, whole texts)`,
    ).argParser(asTyped(DATA_RULES.lossOn)),
    new Option("--max-length <n>", "tokens that a row keeps at most, from its start")
      .argParser(fromOne)
      .default(DATA_DEFAULTS.maxLength),
    new Option(
      "--skip-unusable",
      "leave out rows that would train on nothing, and count them, instead of refusing them",
    ),
    ...templateOptions(),
  ];
}

export function templateSettings({ template, templateArg, date }: TemplateCommand): TemplateSettings {
  return { template, templateArgs: templateArg, date };
}

export function readingSettings(command: DataCommand): ReadingSettings {
  const { format, feature, lossOn, maxLength, skipUnusable = false } = command;
  return { ...templateSettings(command), format, features: feature, lossOn, maxLength, skipUnusable };
}
