// One operation as a card: description, access, request, responses, and a form to try it.
import { label } from "./credentials.js";
import { coded, element, prose } from "./dom.js";
import { Trial } from "./try.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];

export function operationsOf(description) {
  return Object.entries(description.paths ?? {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ ...item[method], path, method: method.toUpperCase() })));
}

export class Card {
  constructor(operation, schemas, credential) {
    this.operation = operation;
    this.schemas = schemas;
    this.trial = new Trial(operation, credential);
    this.id = `op-${operation.operationId}`;
    this.words = [operation.path, operation.method, operation.summary, operation.description, operation.operationId, ...(operation.tags ?? [])].join(" ").toLowerCase();
    this.link = element("a", { href: `#${this.id}`, class: "entry" }, badge(operation.method), element("span", { class: "path" }, ...breakable(operation.path)));
    this.view = this.#view();
  }

  show(word) {
    const found = this.words.includes(word);
    this.view.hidden = !found;
    this.link.parentElement.hidden = !found;
    return found;
  }

  #view() {
    const { operation } = this;
    const title = `${this.id}-title`;
    return element("article", { class: "card", id: this.id, "aria-labelledby": title, tabindex: "-1" },
      element("h3", { id: title, class: "heading" }, badge(operation.method), element("code", { class: "path" }, ...breakable(operation.path))),
      operation.summary ? element("p", { class: "summary" }, ...coded(operation.summary)) : null,
      ...prose(operation.description),
      element("div", { class: "columns" },
        element("div", { class: "about" }, this.#limits(), this.#parameters(), this.#bodies(), this.#responses()),
        this.trial.view()));
  }

  #limits() {
    const { operation } = this;
    const rows = [["Access", this.#access()]];
    const limits = operation["x-rate-limits"] ?? [];
    if (limits.length) rows.push(["Limits", element("ul", { class: "flat" }, limits.map((each) => element("li", {}, each)))]);
    if (operation["x-max-bytes"] !== undefined) rows.push(["Body", `at most ${Number(operation["x-max-bytes"]).toLocaleString("en")} bytes`]);
    return element("dl", { class: "limits" }, rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  }

  #access() {
    const ways = this.operation.security ?? [];
    if (!ways.length) return element("span", { class: "chip open" }, "open to everyone");
    const known = this.schemas.description.components?.securitySchemes ?? {};
    const schemes = new Set(ways.map((way) => Object.keys(way).map((name) => label(known[name], name)).join(" with ")));
    const scopes = new Set(ways.map((way) => Object.values(way).flat().join(" ")).filter(Boolean));
    const needed = [...scopes].flatMap((each, number) => [number ? " or " : "", ...each.split(" ").map((scope) => element("code", { class: "scope" }, scope))]);
    return [
      element("p", {}, [...schemes].join(" or ")),
      needed.length ? element("p", {}, [...scopes][0].includes(" ") ? "with scopes " : "with scope ", ...needed) : "",
      this.operation["x-access"] ? element("p", {}, this.operation["x-access"]) : "",
    ];
  }

  #parameters() {
    const found = this.operation.parameters ?? [];
    if (!found.length) return null;
    const rows = found.map((each) => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, each.name), element("span", { class: "optional" }, ` ${each.in}`)),
      element("td", {}, element("span", { class: "type" }, this.schemas.kind(each.schema)), ` ${this.schemas.limits(each.schema)}`,
        each.description ? element("p", { class: "hint" }, ...coded(each.description)) : null)));
    return block("Parameters", element("table", { class: "members" }, element("tbody", {}, rows)));
  }

  #bodies() {
    const contents = Object.entries(this.operation.requestBody?.content ?? {});
    if (!contents.length) return null;
    // Media types of the same format have the same schema, which is listed once.
    const bySchema = new Map();
    for (const [type, content] of contents) {
      const key = JSON.stringify(content.schema ?? {});
      bySchema.set(key, [...(bySchema.get(key) ?? []), type]);
    }
    return block("Body", ...[...bySchema].map(([schema, types], number) => element("details", { class: "more", open: number === 0 },
      element("summary", {}, ...types.flatMap((type) => [element("code", {}, type), " "])), this.schemas.view(JSON.parse(schema)))));
  }

  #responses() {
    const found = Object.entries(this.operation.responses ?? {}).map(([status, response]) => [status, this.schemas.resolve(response)]);
    const [good, bad] = [true, false].map((isGood) => found.filter(([status]) => status.startsWith("2") === isGood));
    if (!found.length) return null;
    return block("Responses", ...good.map((each) => this.#success(...each)), bad.length ? rejections(bad) : null);
  }

  #success(status, response) {
    const contents = Object.entries(response.content ?? {});
    return element("details", { class: "more", open: true }, element("summary", {}, code(status, "good")),
      ...prose(response.description),
      ...contents.map(([type, content]) => element("div", {}, element("p", {}, element("code", {}, type)), this.schemas.view(content.schema))));
  }
}

// Errors are similar for all operations, so they are collapsed: one line that expands to a table.
function rejections(found) {
  const rows = found.map(([status, response]) => element("tr", {},
    element("th", { scope: "row" }, code(status, "bad")),
    element("td", {}, ...reasons(response))));
  return element("details", { class: "more" },
    element("summary", {}, ...found.map(([status]) => code(status, "bad"))),
    element("table", { class: "errors" }, element("tbody", {}, rows)));
}

// Each code with its meaning; without codes, the description of the response.
function reasons(response) {
  const examples = Object.entries(Object.values(response.content ?? {})[0]?.examples ?? {});
  if (!examples.length) return prose(response.description);
  return examples.map(([name, example]) => element("p", {}, element("code", {}, name), " ", ...coded(example.summary ?? "")));
}

function code(status, kind) {
  return element("span", { class: `status-code ${kind}` }, status, " ");
}

function badge(method) {
  return element("span", { class: `badge ${method.toLowerCase()}` }, method);
}

// Long paths may break after a slash.
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part) => [part, element("wbr")]);
}

function block(title, ...children) {
  return element("section", { class: "block" }, element("h4", {}, title), ...children);
}
