// Trying an operation: a form, the response, and the same request for a shell.
import { choice, element, field } from "./dom.js";

const TEXTS = /^(application\/json|text\/)/;
const SHOWN_HEADERS = ["content-type", "x-request-id", "retry-after", "www-authenticate", "allow", "ratelimit", "ratelimit-policy"];
const MAX_SHOWN = 100_000;

// The URL of the app: the page is at <root>/docs. It includes the origin, so that no path can refer to another host.
export const ROOT = location.origin + location.pathname.replace(/\/docs\/?$/, "");

export class Trial {
  constructor(operation, credential) {
    this.operation = operation;
    this.credential = credential;
    this.arguments = new Map();
    this.headers = new Map();
    this.contents = Object.entries(operation.requestBody?.content ?? {});
    this.state = element("p", { class: "status", role: "status" });
    this.response = element("div", { class: "response" });
    this.shell = element("pre", { tabindex: "0", "aria-label": "The call for a shell" });
    this.send = element("button", { type: "submit", class: "primary" }, "Send");
  }

  view() {
    const form = element("form", { submit: (event) => this.#submit(event), input: () => this.refresh(), change: () => this.refresh() },
      this.#parameters("path", this.arguments), this.#body(), this.#more(),
      element("div", { class: "buttons" }, this.send));
    this.refresh();
    return element("section", { class: "try", "aria-label": `Try ${this.operation.method} ${this.operation.path}` },
      element("h4", {}, "Try it"), form, this.state, this.response,
      element("details", { class: "shell" }, element("summary", {}, "As a shell command"), this.shell, this.#copy()));
  }

  refresh() {
    for (const input of this.arguments.values()) input.setCustomValidity?.(unsendable(input.value));
    this.shell.textContent = this.#command();
  }

  #parameters(where, inputs) {
    return (this.operation.parameters ?? []).filter((each) => each.in === where).map((each) => {
      const names = each.schema?.enum?.map((value) => [value, value]);
      const input = names ? choice(each.required ? names : [["", "not sent"], ...names])
        : element("input", { type: "text", required: each.required, autocomplete: "off", spellcheck: "false" });
      inputs.set(each.name, input);
      return field(each.name, input);
    });
  }

  #more() {
    const found = this.#parameters("header", this.headers);
    return found.length ? element("details", {}, element("summary", {}, "Headers"), element("div", { class: "fields" }, found)) : null;
  }

  #body() {
    if (!this.contents.length) return [];
    this.type = choice(this.contents.map(([name]) => [name, name]));
    this.text = element("textarea", { rows: "8", spellcheck: "false", autocomplete: "off", wrap: "off" });
    this.file = element("input", { type: "file" });
    const text = field("Body", this.text);
    const file = field("Body from a file", this.file);
    const example = element("select");
    const examples = field("Example", example);
    const content = () => this.contents.find(([each]) => each === this.type.value)[1];
    const fill = () => {
      const value = content().examples?.[example.value]?.value ?? "";
      this.text.value = typeof value === "string" ? value : written(value);
    };
    const pick = () => {
      const names = Object.keys(content().examples ?? {});
      const isText = TEXTS.test(this.type.value);
      text.hidden = !isText;
      file.hidden = isText;
      examples.hidden = !isText || names.length < 2;
      example.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
      fill();
    };
    this.type.addEventListener("change", pick);
    example.addEventListener("change", fill);
    pick();
    return [field("Content-Type", this.type), examples, text, file];
  }

  #path() {
    return this.operation.path.replace(/\{([^{}]*)\}/g, (whole, name) =>
      this.arguments.get(name)?.value.split("/").map(encodeURIComponent).join("/") || whole);
  }

  #isText() {
    return this.type !== undefined && TEXTS.test(this.type.value);
  }

  #given() {
    const found = [...this.headers].map(([name, input]) => [name, input.value.trim()]).filter(([, value]) => value);
    return this.type ? [["Content-Type", this.type.value], ...found] : found;
  }

  #command() {
    const parts = [`curl -X ${this.operation.method} ${quoted(ROOT + this.#path())}`];
    const stands = this.operation.security?.length ? this.credential.standIn() : null;
    // The variable must not be in single quotes, so other characters are removed; header names need no other ones.
    if (stands) parts.push(`-H "${stands[0].replace(/[^\w-]/g, "")}: ${stands[1].replace(/[^\w $-]/g, "")}"`);
    for (const [name, value] of this.#given()) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
    if (this.#isText()) parts.push(`--data-binary ${quoted(this.text.value)}`);
    else if (this.type) parts.push("--data-binary @body");
    return parts.join(" \\\n  ");
  }

  #copy() {
    const button = element("button", { type: "button", class: "plain", click: async () => {
      try {
        await navigator.clipboard.writeText(this.shell.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(this.shell);
        button.textContent = "Selected: copy it with the keyboard";
      }
    } }, "Copy");
    return button;
  }

  async #submit(event) {
    event.preventDefault();
    const credential = this.credential.header();
    this.send.disabled = true;
    this.response.replaceChildren();
    this.state.replaceChildren("Waiting …");
    const started = performance.now();
    try {
      const headers = new Headers(this.#given());
      if (credential) headers.set(...credential);
      const body = this.type ? (this.#isText() ? this.text.value : this.file.files[0] ?? "") : undefined;
      const response = await fetch(ROOT + this.#path(), {
        method: this.operation.method, headers, body,
        credentials: "omit", cache: "no-store", redirect: "manual", referrerPolicy: "no-referrer",
      });
      const bytes = await response.arrayBuffer();
      this.#show(response, bytes, performance.now() - started);
    } catch (error) {
      this.state.replaceChildren(element("span", { class: "bad" }, `No response: ${error.message}. Is the server running, and do credential and headers have plain characters only?`));
    } finally {
      this.send.disabled = false;
      // A disabled button loses focus.
      if (document.activeElement === document.body) this.send.focus();
    }
  }

  #show(response, bytes, milliseconds) {
    const type = response.headers.get("content-type") ?? "";
    const redirected = response.type === "opaqueredirect";
    const status = redirected ? "A redirect, which is not followed" : `${response.status} ${response.statusText}`.trim();
    const rows = SHOWN_HEADERS.filter((name) => response.headers.has(name)).map((name) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, response.headers.get(name))));
    this.state.replaceChildren(
      element("strong", { class: response.ok ? "good" : "bad" }, status), ` in ${Math.round(milliseconds)} ms, ${bytes.byteLength.toLocaleString("en")} bytes`);
    this.response.replaceChildren(
      response.status === 401 ? this.#unknown() : "",
      rows.length ? element("table", { class: "headers" }, element("tbody", {}, rows)) : "",
      ...readable(type, bytes));
  }

  #unknown() {
    return element("p", {}, this.credential.present ? "The server does not accept this credential. " : "This call needs a credential. ",
      this.credential.possible ? element("a", { href: "#credential" }, "Enter one") : "");
  }
}

// A browser removes such path segments before sending the request.
function unsendable(value) {
  return value.split("/").some((part) => /^\.{1,2}$/.test(part)) ? "A browser cannot send “.” or “..” as a segment of a path." : "";
}

function readable(type, bytes) {
  if (!bytes.byteLength) return [];
  if (!/json|^text\//.test(type)) return [element("p", { class: "hint" }, "The body is not a text format.")];
  let text = new TextDecoder().decode(bytes.slice(0, MAX_SHOWN));
  try {
    if (bytes.byteLength <= MAX_SHOWN && /json/.test(type)) text = written(JSON.parse(text, asWritten));
  } catch {
    // The text is shown as received.
  }
  const cut = bytes.byteLength > MAX_SHOWN ? [element("p", { class: "hint" }, "Only the beginning is shown.")] : [];
  return [element("pre", { tabindex: "0", "aria-label": "The body of the response" }, text), ...cut];
}

// Keep the digits of numbers from 2^53, which JavaScript would round.
function asWritten(_, value, context) {
  return typeof value === "number" && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

// Indented JSON with lists of numbers on one line.
function written(value, margin = "") {
  if (isLeaf(value) || typeof value === "string") return JSON.stringify(value);
  const isList = Array.isArray(value);
  if (isList && value.every(isLeaf)) return `[${value.map((each) => JSON.stringify(each)).join(", ")}]`;
  const inner = `${margin}  `;
  const lines = isList ? value.map((each) => written(each, inner))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${written(each, inner)}`);
  const [begin, end] = isList ? "[]" : "{}";
  return lines.length ? `${begin}\n${inner}${lines.join(`,\n${inner}`)}\n${margin}${end}` : begin + end;
}

function isLeaf(value) {
  return value === null || ["number", "boolean"].includes(typeof value) || Boolean(JSON.isRawJSON?.(value));
}

function quoted(text) {
  return `'${String(text).replaceAll("'", "'\\''")}'`;
}
