// Trying an operation: a form, the answer, and the same call for a shell.
import { choice, element, field } from "./dom.js";

const TEXTS = /^(application\/json|text\/)/;
const SHOWN = ["content-type", "x-request-id", "retry-after", "www-authenticate", "allow", "ratelimit", "ratelimit-policy"];
const MOST_SHOWN = 100_000;

// Where the app is mounted: the page is at <root>/docs.
export const ROOT = location.pathname.replace(/\/docs\/?$/, "");

export class Trial {
  constructor(operation, credential) {
    this.operation = operation;
    this.credential = credential;
    this.arguments = new Map();
    this.contents = Object.entries(operation.requestBody?.content ?? {});
    this.answer = element("div", { class: "answer", role: "status", "aria-live": "polite" });
    this.shell = element("pre", { tabindex: "0", "aria-label": "The call for a shell" });
    this.send = element("button", { type: "submit", class: "primary" }, "Send");
  }

  view() {
    const form = element("form", { submit: (event) => this.#submit(event), input: () => this.refresh(), change: () => this.refresh(), novalidate: false },
      this.#parameters(), this.#body(),
      element("div", { class: "buttons" }, this.send));
    this.refresh();
    return element("section", { class: "try", "aria-label": "Try it" },
      element("h4", {}, "Try it"), form, this.answer,
      element("details", { class: "shell" }, element("summary", {}, "As a shell command"), this.shell, this.#copy()));
  }

  refresh() {
    this.shell.textContent = this.#command();
  }

  #parameters() {
    return (this.operation.parameters ?? []).filter((each) => each.in === "path").map((each) => {
      const input = element("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false" });
      this.arguments.set(each.name, input);
      return field(each.name, input);
    });
  }

  #body() {
    if (!this.contents.length) return [];
    this.type = choice(this.contents.map(([name]) => [name, name]));
    this.text = element("textarea", { rows: "8", spellcheck: "false", autocomplete: "off", wrap: "off" });
    this.file = element("input", { type: "file" });
    const text = field("Body", this.text);
    const file = field("Body from a file", this.file);
    const pick = () => {
      const [name, content] = this.contents.find(([each]) => each === this.type.value);
      text.hidden = !TEXTS.test(name);
      file.hidden = TEXTS.test(name);
      this.text.value = written(firstExample(content));
    };
    this.type.addEventListener("change", pick);
    pick();
    return [field("Content-Type", this.type), text, file];
  }

  #path() {
    return this.operation.path.replace(/\{([^{}]*)\}/g, (_, name) =>
      (this.arguments.get(name)?.value || `{${name}}`).split("/").map(encodeURIComponent).join("/"));
  }

  #isText() {
    return this.type !== undefined && TEXTS.test(this.type.value);
  }

  #command() {
    const parts = [`curl -X ${this.operation.method} ${quoted(location.origin + ROOT + this.#path())}`];
    const header = this.credential.header(this.credential.isKey ? "$API_KEY" : "$TOKEN");
    if (header) parts.push(`-H "${header[0]}: ${header[1]}"`);
    if (this.type) parts.push(`-H ${quoted(`Content-Type: ${this.type.value}`)}`);
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
    const headers = new Headers();
    const credential = this.credential.header();
    this.send.disabled = true;
    this.answer.replaceChildren(element("p", { class: "hint" }, "Waiting …"));
    const started = performance.now();
    try {
      if (credential) headers.set(...credential);
      if (this.type) headers.set("Content-Type", this.type.value);
      const body = this.type ? (this.#isText() ? this.text.value : this.file.files[0] ?? "") : undefined;
      const response = await fetch(ROOT + this.#path(), {
        method: this.operation.method, headers, body,
        credentials: "omit", cache: "no-store", redirect: "manual", referrerPolicy: "no-referrer",
      });
      const bytes = await response.arrayBuffer();
      this.#show(response, bytes, performance.now() - started);
    } catch (error) {
      this.answer.replaceChildren(element("p", { class: "bad" }, `No answer came: ${error.message}. Is the server up, and does the credential have only plain characters?`));
    } finally {
      this.send.disabled = false;
    }
  }

  #show(response, bytes, milliseconds) {
    const type = response.headers.get("content-type") ?? "";
    const redirected = response.type === "opaqueredirect";
    const status = redirected ? "A redirect, which is not followed" : `${response.status} ${response.statusText}`.trim();
    const rows = SHOWN.filter((name) => response.headers.has(name)).map((name) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, response.headers.get(name))));
    this.answer.replaceChildren(
      element("p", { class: "status" },
        element("strong", { class: response.ok ? "good" : "bad" }, status), ` in ${Math.round(milliseconds)} ms, ${bytes.byteLength.toLocaleString("en")} bytes`),
      rows.length ? element("table", { class: "headers" }, element("tbody", {}, rows)) : "",
      ...readable(type, bytes));
  }
}

function readable(type, bytes) {
  if (!bytes.byteLength) return [];
  if (!/json|^text\//.test(type)) return [element("p", { class: "hint" }, "The body is not text.")];
  let text = new TextDecoder().decode(bytes.slice(0, MOST_SHOWN));
  try {
    if (bytes.byteLength <= MOST_SHOWN && /json/.test(type)) text = written(JSON.parse(text));
  } catch {
    // It is shown as it came.
  }
  const cut = bytes.byteLength > MOST_SHOWN ? [element("p", { class: "hint" }, "Only the beginning is shown.")] : [];
  return [element("pre", { tabindex: "0", "aria-label": "The body of the answer" }, text), ...cut];
}

function firstExample(content) {
  return Object.values(content?.examples ?? {})[0]?.value;
}

// JSON with rows of numbers on one line each.
export function written(value) {
  if (value === undefined) return "";
  if (typeof value === "string") return value;
  return JSON.stringify(value, null, 2).replace(/\[\s*((?:(?:-?[\d.eE+-]+|true|false|null),?\s*)+)\]/g, (_, inner) => `[${inner.trim().replace(/\s+/g, " ")}]`);
}

function quoted(text) {
  return `'${String(text).replaceAll("'", "'\\''")}'`;
}
