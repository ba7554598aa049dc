/**
 * Evaluates a template's tree as jinja2 does, in the environment that transformers makes for it: Python's values, what
 * is undefined may be printed and nothing else, loops and macros have scopes of their own, lists and dicts stay as they
 * are. (@huggingface/jinja's interpreter prints values as JSON, strips what strip("\n") does not, takes what is
 * undefined for nothing, and lets one turn of a loop see another's variables.)
 *
 * Source: jinja2 3.1 (compiler.py, runtime.py, sandbox.py); transformers 5, utils/chat_template_utils.py.
 */
import { asInteger, type Named } from "./arguments.js";
import { applyFilter, applyTest, items, type Evaluation } from "./filters.js";
import { GENERATION, NO_ITEM, TEST, type Call, type Identifier, type Node, type Parameter } from "./parse.js";
import { characterAt, slice, stringMethod } from "./strings.js";
import {
  compare,
  contains,
  defined,
  equal,
  fail,
  Float,
  isList,
  isMap,
  isNumber,
  isTrue,
  iterate,
  likeThese,
  Namespace,
  numberOf,
  objectName,
  represent,
  textOf,
  Tuple,
  tuple,
  typeName,
  Undefined,
  type Func,
  type Value,
} from "./values.js";

/** What a template writes. */
export interface Written {
  text: string;
  /** Where in it the parts lie that the template marks as an assistant's. */
  generations: readonly (readonly [start: number, end: number])[];
}

/** Names in a scope, and those around it. */
class Scope {
  readonly #names = new Map<string, Value>();

  constructor(readonly outer: Scope | null) {}

  get(name: string): Value | undefined {
    return this.#names.get(name) ?? (this.#names.has(name) ? null : this.outer?.get(name));
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

/** Where text goes. */
interface Sink {
  text: string;
}

class Break extends Error {}
class Continue extends Error {}

const CONSTANTS: Readonly<Record<string, Value>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};
/** Methods that would change a list or a dict. */
const CHANGING: Readonly<Record<string, readonly string[]>> = {
  list: ["append", "reverse", "insert", "sort", "extend", "remove", "clear", "pop"],
  dict: ["clear", "pop", "popitem", "setdefault", "update"],
};
/** Macros within macros: a template that calls itself without an end is told so, in every engine alike. */
const DEEPEST = 100;
/** Jinja's operator, of which the sources of what computes have none. */
const POWER = "*".repeat(2);
/** jinja2's MAX_RANGE. */
const LONGEST_RANGE = 100000;

const GLOBALS: Readonly<Record<string, Func>> = {
  range: (args) => range(args.map((one) => asInteger(one, 0))),
  dict: ([from], named) => new Map<Value, Value>([...(from === undefined ? [] : pairs(from)), ...named]),
  namespace: ([from], named) =>
    new Namespace(
      new Map([...(from === undefined ? [] : pairs(from)).map(([key, one]) => [textOf(key), one] as const), ...named]),
    ),
  joiner: ([by = ", "]) => {
    let used = false;
    return () => {
      const text = used ? by : "";
      used = true;
      return text;
    };
  },
};

function pairs(from: Value): [Value, Value][] {
  const source = from instanceof Namespace ? new Map<Value, Value>(from.values) : from;
  return (isMap(source) ? items(source) : iterate(source)).map((pair) => {
    const [key, value] = iterate(pair);
    return key === undefined || value === undefined ? fail("a dict is made of pairs") : [key, value];
  });
}

function range(given: readonly number[]): number[] {
  const [start, stop, step = 1] = given.length < 2 ? [0, given[0] ?? 0] : given;
  if (step === 0) fail("range() arg 3 must not be zero");
  const length = Math.max(0, Math.ceil((stop! - start!) / step));
  if (length > LONGEST_RANGE)
    fail(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${LONGEST_RANGE}).`);
  return Array.from({ length }, (_, i) => start! + i * step);
}

/**
 * The text of a template.
 * @param variables of the template; null: not defined
 * @throws TemplateError as Jinja or Python would
 */
export function evaluate(tree: Node, variables: ReadonlyMap<string, Value>): Written {
  return new Evaluator().run(tree, variables);
}

class Evaluator implements Evaluation {
  readonly #root: Sink = { text: "" };
  readonly #generations: [number, number][] = [];
  #depth = 0;

  run(tree: Node, variables: ReadonlyMap<string, Value>): Written {
    const globals = new Scope(null);
    for (const [name, value] of Object.entries(GLOBALS)) globals.set(name, value);
    for (const [name, value] of variables) globals.set(name, value);
    if (tree.type === "Program") this.#write(tree.body, new Scope(globals), this.#root);
    return { text: this.#root.text, generations: this.#generations };
  }

  #write(nodes: readonly Node[], scope: Scope, out: Sink): void {
    for (const node of nodes) this.#statement(node, scope, out);
  }

  /** What nodes write, in a scope of their own. */
  #textOf(nodes: readonly Node[], scope: Scope): string {
    const out: Sink = { text: "" };
    this.#write(nodes, new Scope(scope), out);
    return out.text;
  }

  #statement(node: Node, scope: Scope, out: Sink): void {
    switch (node.type) {
      case "Comment":
        return;
      case "If":
        this.#write(isTrue(this.#value(node.test, scope)) ? node.body : node.alternate, scope, out);
        return;
      case "For":
        this.#loop(node, scope, out);
        return;
      case "Break":
        throw new Break();
      case "Continue":
        throw new Continue();
      case "Set":
        this.#set(node, scope);
        return;
      case "Macro":
        scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
        return;
      case "CallStatement": {
        const caller = this.#macro("caller", node.callerArgs ?? [], node.body, scope);
        out.text += textOf(this.#call(node.call, scope, new Map([["caller", caller]])));
        return;
      }
      case "FilterStatement": {
        const text = this.#textOf(node.body, scope);
        if (node.filter.type === "Identifier" && node.filter.value === GENERATION) {
          const start = this.#root.text.length;
          this.#generations.push([start, start + text.length]);
          out.text += text;
        } else out.text += textOf(this.#filter(node.filter, text, scope));
        return;
      }
      default:
        out.text += textOf(this.#value(node, scope));
    }
  }

  #loop(node: Node & { type: "For" }, scope: Scope, out: Sink): void {
    const select = node.iterable.type === "SelectExpression" ? node.iterable : null;
    const all = iterate(this.#value(select ? select.lhs : node.iterable, scope));
    const list = select
      ? all.filter((item) => {
          const inner = new Scope(scope);
          this.#assign(node.loopvar, item, inner);
          return isTrue(this.#value(select.test, inner));
        })
      : all;
    let changed: Value | undefined;
    for (const [i, item] of list.entries()) {
      const inner = new Scope(scope);
      const beyond = (at: number, message: string): Value => list[at] ?? new Undefined(message);
      inner.set(
        "loop",
        new Namespace(
          new Map<string, Value>([
            ["index", i + 1],
            ["index0", i],
            ["revindex", list.length - i],
            ["revindex0", list.length - i - 1],
            ["first", i === 0],
            ["last", i === list.length - 1],
            ["length", list.length],
            // Only loops that call themselves are deeper.
            ["depth", 1],
            ["depth0", 0],
            ["previtem", i === 0 ? new Undefined("there is no previous item") : list[i - 1]!],
            ["nextitem", beyond(i + 1, "there is no next item")],
            ["cycle", (args) => args[i % args.length] ?? fail("no items for cycling given")],
            [
              "changed",
              (args) => {
                const before = changed;
                changed = args;
                return before === undefined || !equal(before, args);
              },
            ],
          ]),
        ),
      );
      this.#assign(node.loopvar, item, inner);
      try {
        this.#write(node.body, inner, out);
      } catch (signal) {
        if (signal instanceof Break) break;
        if (!(signal instanceof Continue)) throw signal;
      }
    }
    if (list.length === 0) this.#write(node.defaultBlock, new Scope(scope), out);
  }

  #set({ assignee, value, body }: Node & { type: "Set" }, scope: Scope): void {
    if (value) {
      this.#assign(assignee, this.#value(value, scope), scope);
      return;
    }
    const text = this.#textOf(body, scope);
    // {% set x | trim %}...{% endset %}
    const filters: (Identifier | Call)[] = [];
    let target = assignee;
    for (; target.type === "FilterExpression"; target = target.operand) filters.unshift(target.filter);
    this.#assign(
      target,
      filters.reduce<Value>((one, filter) => this.#filter(filter, one, scope), text),
      scope,
    );
  }

  #assign(target: Node, value: Value, scope: Scope): void {
    if (target.type === "Identifier") scope.set(target.value, value);
    else if (target.type === "TupleLiteral") {
      const parts = iterate(value);
      const { length } = target.value;
      if (parts.length > length) fail(`too many values to unpack (expected ${length})`);
      if (parts.length < length) fail(`not enough values to unpack (expected ${length}, got ${parts.length})`);
      for (const [i, one] of target.value.entries()) this.#assign(one, parts[i]!, scope);
    } else if (target.type === "MemberExpression" && target.property.type === "Identifier" && !target.computed) {
      const object = this.#value(target.object, scope);
      if (!(object instanceof Namespace)) fail("cannot assign attribute on non-namespace object");
      else object.values.set(target.property.value, value);
    } else fail(`cannot assign to a ${target.type}`);
  }

  #macro(name: string, parameters: readonly Parameter[], body: readonly Node[], scope: Scope): Func {
    return (args, named) => {
      const inner = new Scope(scope);
      const left = new Map(named);
      const caller = left.get("caller");
      left.delete("caller");
      if (caller !== undefined) inner.set("caller", caller);
      for (const [i, parameter] of parameters.entries()) {
        const key = parameter.type === "Identifier" ? parameter.value : parameter.key.value;
        const given = i < args.length ? args[i] : left.get(key);
        if (i < args.length && left.has(key)) fail(`macro '${name}' got multiple values for argument '${key}'`);
        left.delete(key);
        inner.set(
          key,
          given !== undefined
            ? given
            : parameter.type === "Identifier"
              ? new Undefined(`parameter '${key}' was not provided`)
              : this.#value(parameter.value, inner),
        );
      }
      const takes = (special: string): boolean => mentions(body, special);
      if (takes("kwargs")) inner.set("kwargs", new Map(left));
      else if (left.size > 0) fail(`macro '${name}' takes no keyword argument '${[...left.keys()][0]}'`);
      if (takes("varargs")) inner.set("varargs", tuple(...args.slice(parameters.length)));
      else if (args.length > parameters.length)
        fail(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
      if (this.#depth === DEEPEST) fail("maximum recursion depth exceeded");
      const out: Sink = { text: "" };
      this.#depth++;
      this.#write(body, inner, out);
      this.#depth--;
      return out.text;
    };
  }

  #value(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "StringLiteral":
      case "IntegerLiteral":
        return node.value;
      case "FloatLiteral":
        return new Float(node.value);
      case "ArrayLiteral":
        return node.value.map((one) => this.#value(one, scope));
      case "TupleLiteral":
        return tuple(
          ...node.value
            .filter((one) => one.type !== "Identifier" || one.value !== NO_ITEM)
            .map((one) => this.#value(one, scope)),
        );
      case "ObjectLiteral":
        return new Map(
          Array.from(node.value, ([key, one]) => [this.#value(key, scope), this.#value(one, scope)] as const),
        );
      case "Identifier": {
        if (Object.hasOwn(CONSTANTS, node.value)) return CONSTANTS[node.value]!;
        const value = scope.get(node.value);
        return value === undefined ? new Undefined(`'${node.value}' is undefined`) : value;
      }
      case "MemberExpression": {
        const object = this.#value(node.object, scope);
        if (!node.computed) return this.attribute(object, String((node.property as { value: string | number }).value));
        if (node.property.type === "SliceExpression") return this.#slice(object, node.property, scope);
        return this.item(object, this.#value(node.property, scope));
      }
      case "CallExpression":
        return this.#call(node, scope);
      case "FilterExpression":
        return this.#filter(node.filter, this.#value(node.operand, scope), scope);
      case "TestExpression":
        return applyTest(node.test.value, this.#value(node.operand, scope), []) !== node.negate;
      case "Ternary":
        return this.#value(isTrue(this.#value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case "SelectExpression":
        return isTrue(this.#value(node.test, scope))
          ? this.#value(node.lhs, scope)
          : new Undefined("the inline if-expression evaluated to false and no else section was defined.");
      case "UnaryExpression":
        return unary(node.operator.value, this.#value(node.argument, scope));
      case "BinaryExpression": {
        const left = this.#value(node.left, scope);
        const operator = node.operator.value;
        if (operator === "and") return isTrue(left) ? this.#value(node.right, scope) : left;
        if (operator === "or") return isTrue(left) ? left : this.#value(node.right, scope);
        return binary(operator, left, this.#value(node.right, scope));
      }
      default:
        return fail(`a ${node.type} is no expression`);
    }
  }

  /** value.name: what Python has of that name, else the item. */
  attribute(value: Value, name: string): Value {
    if (value instanceof Undefined) return fail(value.message);
    const own = this.#member(value, name);
    if (own !== undefined) return own;
    const item = isMap(value) ? value.get(name) : undefined;
    return item !== undefined ? item : new Undefined(`'${objectName(value)}' has no attribute '${name}'`);
  }

  /** value[key]: the item, else what Python has of that name. */
  item(value: Value, key: Value): Value {
    if (value instanceof Undefined) return fail(value.message);
    const place = typeof key === "boolean" ? Number(key) : key;
    const found = isMap(value)
      ? value.get(key instanceof Float ? key.value : key)
      : typeof place !== "number"
        ? undefined
        : isList(value)
          ? value.at(place)
          : typeof value === "string"
            ? characterAt(value, place)
            : undefined;
    if (found !== undefined) return found;
    if (typeof key !== "string") return new Undefined(`${objectName(value)} has no element ${textOf(key)}`);
    return this.#member(value, key) ?? new Undefined(`'${objectName(value)}' has no attribute '${key}'`);
  }

  /** Methods, and what a namespace holds. */
  #member(value: Value, name: string): Value | undefined {
    if (typeof value === "string") return stringMethod(value, name);
    if (value instanceof Namespace) return value.values.get(name);
    const type = typeName(value);
    if (CHANGING[type]?.includes(name))
      return () => fail(`access to attribute '${name}' of '${type}' object is unsafe.`);
    if (isMap(value))
      switch (name) {
        case "items":
          return () => items(value);
        case "keys":
          return () => [...value.keys()];
        case "values":
          return () => [...value.values()];
        case "get":
          return ([key = null, fallback = null]) => value.get(key) ?? (value.has(key) ? null : fallback);
        case "copy":
          return () => new Map(value);
      }
    if (isList(value))
      switch (name) {
        case "index":
          return ([wanted = null]) => {
            const at = value.findIndex((one) => equal(one, wanted));
            return at < 0 ? fail(`${represent(wanted)} is not in list`) : at;
          };
        case "count":
          return ([wanted = null]) => value.filter((one) => equal(one, wanted)).length;
        case "copy":
          return () => [...value];
      }
    return undefined;
  }

  #slice(object: Value, { start, stop, step }: Node & { type: "SliceExpression" }, scope: Scope): Value {
    const value = defined(object);
    const bound = (node: Node | undefined): number | null => {
      const given = node === undefined ? null : this.#value(node, scope);
      if (given === null) return null;
      if (typeof given === "number" || typeof given === "boolean") return Number(given);
      return fail("slice indices must be integers or None or have an __index__ method");
    };
    if (typeof value === "string" || isList(value)) return slice(value, bound(start), bound(stop), bound(step) ?? 1);
    return new Undefined(`${objectName(value)} has no element slice`);
  }

  #arguments(nodes: readonly Node[], scope: Scope): [Value[], Map<string, Value>] {
    const args: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === "KeywordArgumentExpression") named.set(node.key.value, this.#value(node.value, scope));
      else if (node.type === "SpreadExpression") args.push(...iterate(this.#value(node.argument, scope)));
      else if (node.type === "KeywordSpreadExpression")
        for (const [key, value] of pairs(this.#value(node.argument, scope))) named.set(textOf(key), value);
      else args.push(this.#value(node, scope));
    }
    return [args, named];
  }

  #call({ callee, args }: Call, scope: Scope, more?: Named): Value {
    const called = defined(this.#value(callee, scope));
    if (typeof called !== "function") return fail(`'${typeName(called)}' object is not callable`);
    const [values, named] = this.#arguments(args, scope);
    for (const [name, value] of more ?? []) named.set(name, value);
    return called(values, named);
  }

  #filter(filter: Identifier | Call, value: Value, scope: Scope): Value {
    const [name, args, named] =
      filter.type === "Identifier"
        ? [filter.value, [], new Map<string, Value>()]
        : [(filter.callee as Identifier).value, ...this.#arguments(filter.args, scope)];
    const test = TEST.exec(name);
    return test ? applyTest(test[2]!, value, args) === !test[1] : applyFilter(name, value, args, named, this);
  }
}

/** Whether a name is used somewhere in nodes. */
function mentions(node: unknown, name: string): boolean {
  if (Array.isArray(node)) return node.some((one) => mentions(one, name));
  if (node instanceof Map) return [...node].some((one) => mentions(one, name));
  if (typeof node !== "object" || node === null) return false;
  const { type, value } = node as { type?: unknown; value?: unknown };
  return (type === "Identifier" && value === name) || Object.values(node).some((one) => mentions(one, name));
}

function unary(operator: string, value: Value): Value {
  if (operator === "not") return !isTrue(value);
  const given = defined(value);
  if (!isNumber(given)) return fail(`bad operand type for unary ${operator}: '${typeName(given)}'`);
  return likeThese(operator === "-" ? -numberOf(given) : numberOf(given), given);
}

function binary(operator: string, left: Value, right: Value): Value {
  switch (operator) {
    case "==":
      return equal(left, right);
    case "!=":
      return !equal(left, right);
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
    case "<":
      return compare(left, right, operator) < 0;
    case "<=":
      return compare(left, right, operator) <= 0;
    case ">":
      return compare(left, right, operator) > 0;
    case ">=":
      return compare(left, right, operator) >= 0;
    case "~":
      return textOf(left) + textOf(right);
    default:
      return arithmetic(operator, defined(left), defined(right));
  }
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  if (isNumber(left) && isNumber(right)) return calculate(operator, left, right);
  if (operator === "+") {
    if (typeof left === "string")
      return typeof right === "string"
        ? left + right
        : fail(`can only concatenate str (not "${typeName(right)}") to str`);
    if (isList(left)) {
      if (typeName(left) !== typeName(right))
        return fail(`can only concatenate ${typeName(left)} (not "${typeName(right)}") to ${typeName(left)}`);
      const both = [...left, ...(right as readonly Value[])];
      return left instanceof Tuple ? tuple(...both) : both;
    }
  }
  if (operator === "*") {
    const [sequence, times] = typeof left === "number" ? [right, left] : [left, right];
    if (typeof times === "number" && typeof sequence === "string") return sequence.repeat(Math.max(0, times));
    if (typeof times === "number" && isList(sequence))
      return Array.from({ length: Math.max(0, times) }, () => sequence).flat() as Value[];
  }
  if (operator === "%" && typeof left === "string") return formatted(left, right);
  const shown = operator === POWER ? `${POWER} or pow()` : operator;
  return fail(`unsupported operand type(s) for ${shown}: '${typeName(left)}' and '${typeName(right)}'`);
}

function calculate(operator: string, left: number | boolean | Float, right: number | boolean | Float): Value {
  const [a, b] = [numberOf(left), numberOf(right)];
  switch (operator) {
    case "+":
      return likeThese(a + b, left, right);
    case "-":
      return likeThese(a - b, left, right);
    case "*":
      return likeThese(a * b, left, right);
    case "/":
      return b === 0 ? fail("division by zero") : new Float(a / b);
    case "//":
      return b === 0 ? fail("integer division or modulo by zero") : likeThese(Math.floor(a / b), left, right);
    case "%":
      return b === 0 ? fail("integer modulo by zero") : likeThese(a - b * Math.floor(a / b), left, right);
    case POWER: {
      if (!Number.isInteger(b) || b < 0 || b > 1024) return fail(`a power of ${b} is not supported`);
      let power = 1;
      for (let i = 0; i < b; i++) power *= a;
      return likeThese(power, left, right);
    }
    default:
      return fail(`unknown operator ${operator}`);
  }
}

/** "%s of %d" % values. */
function formatted(text: string, given: Value): string {
  const values = given instanceof Tuple ? given : [given];
  let used = 0;
  const result = text.replace(
    /%(0?)(\d*)(?:\.(\d+))?([sdirf%])/g,
    (_, zero: string, width: string, digits: string | undefined, kind: string) => {
      if (kind === "%") return "%";
      const value = used < values.length ? values[used++]! : fail("not enough arguments for format string");
      if (kind === "s" || kind === "r")
        return (kind === "s" ? textOf(value) : represent(value))
          .slice(0, digits === undefined ? undefined : Number(digits))
          .padStart(Number(width), " ");
      if (!isNumber(value)) return fail(`%${kind} format: a real number is required, not ${typeName(value)}`);
      const number = numberOf(value);
      return (
        kind === "f" ? number.toFixed(digits === undefined ? 6 : Number(digits)) : String(Math.trunc(number))
      ).padStart(Number(width), zero || " ");
    },
  );
  if (used < values.length && !isMap(given)) fail("not all arguments converted during string formatting");
  return result;
}
