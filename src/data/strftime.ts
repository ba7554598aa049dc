/** The day that a chat template writes, which is given: nothing here knows today's. */
import { show } from "../io/json.js";
import { ArgumentError } from "../runtime/errors.js";

/** A day. */
export interface Day {
  readonly year: number;
  /** 1 .. 12. */
  readonly month: number;
  /** 1 .. 31. */
  readonly day: number;
}

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
] as const;
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"] as const;

/** @throws ArgumentError for what is no day as "YYYY-MM-DD" */
export function checkDate(where: string, date: unknown): Day {
  const [, year, month, day] =
    (typeof date === "string" ? /^(\d{4})-(\d\d)-(\d\d)$/.exec(date) : null)?.map(Number) ?? [];
  if (!year || !month || !day || month > 12 || day > daysBefore(year, month + 1) - daysBefore(year, month))
    throw new ArgumentError(`${where}: date must be a day as "2026-01-31"; got ${show(date)}.`);
  return { year, month, day };
}

/**
 * Python's strftime of a day's first second, in the C locale.
 * @throws Error for a directive that it does not know, as it is thrown from a template
 */
export function strftime({ year, month, day }: Day, format: string): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const dayOfYear = daysBefore(year, month) - daysBefore(year, 1) + day;
  // 1 January of the year 1 was a Monday.
  const weekday = (daysBefore(year, month) + day) % 7;
  const directives: Readonly<Record<string, string>> = {
    Y: String(year).padStart(4, "0"),
    y: two(year % 100),
    m: two(month),
    "-m": String(month),
    d: two(day),
    "-d": String(day),
    e: String(day).padStart(2, " "),
    j: String(dayOfYear).padStart(3, "0"),
    B: MONTHS[month - 1]!,
    b: MONTHS[month - 1]!.slice(0, 3),
    A: DAYS[weekday]!,
    a: DAYS[weekday]!.slice(0, 3),
    u: String(weekday === 0 ? 7 : weekday),
    w: String(weekday),
    H: "00",
    I: "12",
    M: "00",
    S: "00",
    f: "000000",
    p: "AM",
    Z: "",
    z: "",
    F: `${String(year).padStart(4, "0")}-${two(month)}-${two(day)}`,
    T: "00:00:00",
    "%": "%",
  };
  return format.replace(/%(-?.?)/gs, (all, directive: string) => {
    const value = directives[directive];
    if (value === undefined) throw new Error(`strftime_now does not know ${all}`);
    return value;
  });
}

/** Days from the beginning of the year 1 to that of a month; month 13 is the next year's first. */
function daysBefore(year: number, month: number): number {
  const past = year - 1;
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const lengths = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  const before = lengths.slice(0, month - 1).reduce((sum, length) => sum + length, 0);
  return 365 * past + Math.floor(past / 4) - Math.floor(past / 100) + Math.floor(past / 400) + before;
}
